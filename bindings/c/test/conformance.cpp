// Runs the three corpora on the installed library: docs/src/spec/conformance.md. The argument is their directory.
#include <openssl/evp.h>

#include <autonomy_gate.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "corpus.hpp"

using autonomy::Answer;
using autonomy::Call;
using autonomy::Error;
using autonomy::Gate;
using autonomy::GateOptions;
using corpus::json;

namespace {

/// What a corpus comes to, of which the digest alone is kept.
class Transcript {
 public:
  Transcript() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void line(const std::string& line) {
    EVP_DigestUpdate(context_.get(), line.data(), line.size());
    EVP_DigestUpdate(context_.get(), "\n", 1);
  }
  std::string digest() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    EVP_DigestFinal_ex(context_.get(), bytes, &len);
    std::string text = "sha256:";
    char byte[3];
    for (unsigned at = 0; at < len; ++at) {
      std::snprintf(byte, sizeof byte, "%02x", bytes[at]);
      text += byte;
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

template <class Left, class Right>
void same(const std::string& what, const Left& found, const Right& expected) {
  if (json(found) != json(expected)) {
    throw std::runtime_error(what + ": found " + json(found).dump() + ", expected " + json(expected).dump());
  }
}

std::string or_dash(const char* text) { return text == nullptr ? "-" : text; }

std::size_t signatures(const json& all, Transcript& transcript) {
  for (const json& one : all.at("cases")) {
    const std::string name = one.at("name"), signature = corpus::hex(one.at("signature"));
    const std::string bytes = corpus::hex(one.at("key")) + signature + corpus::hex(one.at("message"));
    const bool valid = signature.size() == 64 &&
                       ag_verify_signature(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()) == AG_OK;
    same(name, valid, one.at("valid"));
    transcript.line(name + "\t" + (valid ? "valid" : "invalid"));
  }
  return all.at("cases").size();
}

std::string described(const ag_bundle& bundle) {
  std::string line = "accepted";
  for (const char* text : {bundle.digest, bundle.name, bundle.version, bundle.channel, bundle.policy_version,
                           bundle.schema_version, bundle.policy_ref, bundle.enrollment_ref}) {
    line += "\t" + or_dash(text);
  }
  line += "\t";
  for (std::size_t at = 0; at < bundle.signers_len; ++at) line += (at == 0 ? "" : ",") + std::string(bundle.signers[at]);
  for (std::size_t at = 0; at < bundle.files_len; ++at) {
    const ag_file& file = bundle.files[at];
    line += "\t" + std::string(file.path) + "=" + file.digest + "@" + std::to_string(file.offset) + "+" +
            std::to_string(file.size);
  }
  return line;
}

std::size_t bundles(const json& all, Transcript& transcript) {
  for (const json& one : all.at("bundles")) {
    GateOptions options;
    for (const json& key : one.at("keys")) options.trusted_keys.push_back(all.at("keys").at(key.get<std::string>()));
    options.threshold = one.at("threshold");
    Gate gate(options);
    const std::string name = one.at("name");
    try {
      gate.load_bundle(corpus::unpack(one.at("tar")));
      const json& accepted = one.at("accepted");
      const auto bundle = gate.bundle();
      same(name, std::string(bundle->digest), accepted.at("digest"));
      for (std::size_t at = 0; at < bundle->files_len; ++at) {
        same(name, json::array({bundle->files[at].path, bundle->files[at].digest}), accepted.at("files").at(at));
      }
      transcript.line(name + "\t" + described(*bundle));
    } catch (const Error& error) {
      same(name, std::string(error.what()), one.value("refused", ""));
      if (gate.bundle() != nullptr) throw std::runtime_error(name + ": a bundle that was refused is active");
      transcript.line(name + "\trefused\t" + error.what());
    }
  }
  return all.at("bundles").size();
}

std::string quoted(ag_reason reason) { return "\"" + std::string(autonomy::text(reason)) + "\""; }

/// The output of `gate_decide`, from the decision's fields.
std::string written(const ag_decision& decision) {
  const std::string reason = decision.allowed ? "null" : quoted(decision.reason);
  const std::string verdict = decision.verdict == AG_NOT_ASKED ? "null"
                              : decision.verdict == 0          ? "\"pass\""
                                                               : quoted(static_cast<ag_reason>(decision.verdict));
  return std::string("{\"effect\":\"") + (decision.allowed ? "allow" : "deny") + "\",\"reason\":" + reason +
         ",\"verdict\":" + verdict + ",\"facts\":\"" + decision.facts + "\",\"frames\":" + decision.frames + "}";
}

Answer answer_of(const json& answer, const json& row, std::size_t lease) {
  const std::string kind = answer.at("kind");
  if (kind == "unavailable") return Answer::unavailable(answer.at("why"));
  if (kind == "not_enrolled") return Answer::not_enrolled(answer.at("observed_at_ms"));
  if (kind == "row") {
    return Answer::enrolled("robot-7", row.at(0), row.at(1), row.at(2), 7, answer.at("observed_at_ms"));
  }
  if (kind == "lease") return Answer::lease(answer.at("leases").at(lease).get_ref<const std::string&>());
  throw std::runtime_error("an answer of the kind " + kind + " is not known");
}

void tell(Gate& gate, const Answer& answer) {
  try {
    gate.set_enrollment(answer);
  } catch (const Error& refused) {
    // It has been told as what does not hold: the case expects that.
    if (refused.status != AG_REFUSED && refused.status != AG_MALFORMED) throw;
  }
}

/// What the corpus says of the frames, and nothing else.
json outline(const std::string& frames) {
  json outlines = json::array();
  for (const json& frame : json::parse(frames)) {
    if (frame.at("kind") != "autonomy.decision") continue;
    const json& attrs = frame.at("attrs");
    outlines.push_back({{"layer", attrs.at("layer")},
                        {"outcome", attrs.at("outcome")},
                        {"reason", attrs.at("reason")},
                        {"enforced", attrs.at("enforced")}});
  }
  return outlines;
}

std::size_t decisions(const json& all, Transcript& transcript) {
  const json& settings = all.at("settings");
  std::vector<json> values;
  for (const json& dimension : all.at("dimensions")) values.push_back(dimension.at("values"));
  const json &modes = values.at(0), &policies = values.at(1), &tars = values.at(2), &nodes = values.at(3),
             &answers = values.at(4), &refs = values.at(5), &statuses = values.at(6), &states = values.at(7);
  std::vector<std::size_t> expected;
  for (const json& run : all.at("expected")) expected.insert(expected.end(), run.at(1).get<std::size_t>(), run.at(0));
  const std::size_t rows = answers.size() * refs.size() * statuses.size() * states.size();
  const std::uint64_t now_ms = settings.at("now_ms");
  Call call;
  call.tool = settings.at("tool");
  call.audit_id = settings.at("audit_id");
  call.now_ms = now_ms;
  std::size_t cases = 0;
  for (std::size_t m = 0; m < modes.size(); ++m) {
    for (std::size_t b = 0; b < tars.size(); ++b) {
      for (std::size_t n = 0; n < nodes.size(); ++n) {
        GateOptions options;
        const std::string mode = modes[m].at("mode");
        options.mode = mode == "off" ? AG_MODE_OFF : mode == "advisory" ? AG_MODE_ADVISORY : AG_MODE_ENFORCE;
        if (!nodes[n].at("node_id").is_null()) options.node_id = nodes[n].at("node_id").get<std::string>();
        options.trusted_keys = settings.at("bundle_keys").get<std::vector<std::string>>();
        options.threshold = settings.at("bundle_threshold");
        options.lease_keys = settings.at("lease_keys").get<std::vector<std::string>>();
        options.lease_threshold = settings.at("lease_threshold");
        options.max_staleness_ms = settings.at("max_staleness_ms");
        options.max_skew_ms = settings.at("max_skew_ms");
        Gate gate(options);
        if (!tars[b].at("tar").is_null()) {
          try {
            gate.load_bundle(corpus::unpack(tars[b].at("tar")));
          } catch (const Error& refused) {
            if (refused.status != AG_REFUSED) throw;
          }
        }
        std::size_t row = 0;
        for (const json& answer : answers) {
          const json before = answer.value("before", json());
          if (!before.is_null()) tell(gate, Answer::lease(before.get_ref<const std::string&>()));
          for (std::size_t at = 0; at < refs.size() * statuses.size() * states.size(); ++at, ++row) {
            const json words = {refs[at / states.size() / statuses.size()].at("enrollment_ref"),
                                statuses[at / states.size() % statuses.size()].at("status"),
                                states[at % states.size()].at("rollout_state")};
            tell(gate, answer_of(answer, words, at));
            const ag_reason verdict = gate.verdict(now_ms);
            for (std::size_t p = 0; p < policies.size(); ++p, ++cases) {
              const std::size_t number = (((m * policies.size() + p) * tars.size() + b) * nodes.size() + n) * rows + row;
              const std::string name = "case " + std::to_string(number);
              const json& want = all.at("outcomes").at(expected.at(number));
              call.policy = static_cast<ag_reason>(policies[p].at("reason").get<int>());
              const auto decision = gate.decide(call);
              const json found = {static_cast<int>(verdict), static_cast<int>(decision->reason)};
              same(name, found, json::array({want.at("verdict"), want.at("effect")}));
              same(name, decision->allowed, want.at("effect") == 0);
              same(name, outline(decision->frames), want.at("frames"));
              transcript.line(std::to_string(verdict) + "\t" + written(*decision));
            }
          }
        }
      }
    }
  }
  same("cases", cases, all.at("cases"));
  return cases;
}

void run(const std::string& directory, const char* name, const char* format,
         std::size_t (*corpus)(const json&, Transcript&)) {
  const json all = corpus::load(directory, name);
  same(name, json::array({all.at("format"), all.at("version")}), json::array({format, 1}));
  Transcript transcript;
  const auto started = std::chrono::steady_clock::now();
  const std::size_t cases = corpus(all, transcript);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);
  const nlohmann::ordered_json line = {{"language", "c"},  {"engine", std::string("native ") + ag_version()},
                                       {"corpus", name},   {"cases", cases},
                                       {"transcript", transcript.digest()}, {"ms", ms.count()}};
  std::cout << "conformance " << line.dump() << std::endl;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: conformance <directory of the corpora>");
  run(argv[1], "signatures", "autonomy-signature-corpus", signatures);
  run(argv[1], "bundles", "autonomy-bundle-corpus", bundles);
  run(argv[1], "decision", "autonomy-decision-corpus", decisions);
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
