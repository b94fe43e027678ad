// The same server in C++17: `c++ -std=c++17 server.cpp $(pkg-config --cflags --libs autonomy_gate libmicrohttpd) -o server`
#include <arpa/inet.h>
#include <microhttpd.h>

#include <autonomy_gate.hpp>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace {

std::string read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string("`") + path + "` cannot be read: give a file");
  return {std::istreambuf_iterator<char>(file), {}};
}

MHD_Result answer(MHD_Connection* connection, int status, std::string json) {
  MHD_Response* response = MHD_create_response_from_buffer(json.size(), json.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, "content-type", "application/json");
  const MHD_Result queued = MHD_queue_response(connection, static_cast<unsigned>(status), response);
  MHD_destroy_response(response);
  return queued;
}

// Asks, and runs the tool with a permit, or not at all.
MHD_Result move(autonomy::Guard& guard, MHD_Connection* connection) try {
  autonomy::Permit permit = guard.ask("arm.move");
  const std::string json = R"({"decision":"allow","output":"moved","audit_id":")" + permit.audit_id() + R"("})";
  const MHD_Result moved = answer(connection, MHD_HTTP_OK, json);
  permit.finish(moved == MHD_YES ? AG_COMPLETED : AG_FAILED);
  return moved;
} catch (const autonomy::Denied& denied) {
  if (denied.cause) std::cerr << denied.audit_id << ": " << *denied.cause << '\n';
  return answer(connection, denied.http_status, denied.json);
} catch (const std::exception& error) {
  // What it was is for the operator, not for the caller.
  std::cerr << "error: " << error.what() << '\n';
  return answer(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, R"({"error":"the call could not be decided"})");
}

MHD_Result handle(void* guard, MHD_Connection* connection, const char* path, const char* method, const char*,
                  const char*, std::size_t* body_len, void** request) {
  if (*request == nullptr) {
    *request = guard;
    return MHD_YES;
  }
  if (*body_len != 0) {
    *body_len = 0;
    return MHD_YES;
  }
  if (std::string(path) != "/move" || std::string(method) != "POST") {
    return answer(connection, MHD_HTTP_NOT_FOUND, R"({"error":"no such path: POST to `/move`"})");
  }
  return move(*static_cast<autonomy::Guard*>(guard), connection);
}

void serve(char** argv) {
  autonomy::GateOptions options;
  if (const char* node_id = std::getenv("AUTONOMY_NODE_ID")) options.node_id = node_id;
  options.mode = AG_MODE_ENFORCE;
  options.bundle = read_file(argv[4]);
  options.trusted_keys = {read_file(argv[5])};
  const auto host = autonomy::NativeHost::at_url(argv[2], argv[3]);
  autonomy::Guard guard(autonomy::Gate(options), host.source(), host.sink());

  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[1])));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // A call waits for its look-up and for the disk: each connection has a thread for that.
  MHD_Daemon* daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION, 0, nullptr,
                                        nullptr, handle, &guard, MHD_OPTION_SOCK_ADDR, &address,
                                        MHD_OPTION_CONNECTION_TIMEOUT, 30U, MHD_OPTION_END);
  if (daemon == nullptr) throw std::runtime_error(std::string("port `") + argv[1] + "` cannot be listened on: take a free one");
  std::cout << "listening on 127.0.0.1:" << MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port << std::endl;
  int signal = 0;
  sigwait(&ends, &signal);
  MHD_stop_daemon(daemon);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 6) {
    std::cerr << "usage: server <port> <url of the native host> <token file> <bundle.tar> <key.pem>\n";
    return 2;
  }
  serve(argv);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
