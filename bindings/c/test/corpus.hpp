// What the runner and the benchmark read of tests/corpus.
#ifndef CORPUS_HPP
#define CORPUS_HPP

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace corpus {

using nlohmann::json;

inline json load(const std::string& directory, const std::string& name) {
  std::ifstream file(directory + "/" + name + ".json");
  if (!file) throw std::runtime_error("`" + directory + "/" + name + ".json` cannot be read: give the directory of the corpora");
  return json::parse(file);
}

inline std::string base64(std::string_view text) {
  static constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned bits = 0, held = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<unsigned>(alphabet.find(c));
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<char>(bits >> held & 0xff));
    }
  }
  return bytes;
}

inline std::string hex(const std::string& text) {
  std::string bytes;
  for (std::size_t at = 0; at + 1 < text.size(); at += 2) {
    bytes.push_back(static_cast<char>(std::stoi(text.substr(at, 2), nullptr, 16)));
  }
  return bytes;
}

/// A tar from its segments: a string is base64, a number that many zero bytes.
inline std::string unpack(const json& segments) {
  std::string tar;
  for (const json& segment : segments) {
    if (segment.is_number()) {
      tar.append(segment.get<std::size_t>(), '\0');
    } else {
      tar += base64(segment.get_ref<const std::string&>());
    }
  }
  return tar;
}

/// The first bundle that is accepted and declares an enrollment.
inline const json& good(const json& bundles) {
  for (const json& one : bundles.at("bundles")) {
    if (one.contains("accepted") && !one.at("accepted").at("enrollment_ref").is_null()) return one;
  }
  throw std::runtime_error("the corpus has no bundle that is accepted");
}

}  // namespace corpus

#endif
