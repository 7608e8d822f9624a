// SPDX-License-Identifier: BSD-3-Clause
// tw-conform: does a NIC keep the promises of the documents? And the responder
// that such a question needs beside the NIC under test.
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <regex>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nic/api/context.h"
#include "nic/api/nic.h"
#include "nic/api/open_nic.h"
#include "nic/conform/responder.h"
#include "nic/conform/runner.h"
#include "nic/port/port_spec.h"

namespace tripwire::conform {
namespace {

struct Options {
  std::vector<std::string> ports;
  std::string peer, tier = "full", filter, except, junit, json, pcap, node;
  uint64_t first_sequence = 1;
  bool list = false, respond = false, want_json = false;
};

std::atomic<bool> stop{false};

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream out(path);
  out << text;
  out.close();
  if (!out)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

absl::Status Respond(const Options& options) {
  NicOptions nic_options;
  nic_options.node = options.node;
  nic_options.first_sequence = options.first_sequence;
  auto nic = OpenNic(options.ports, PortRole::kServer, "conform",
                     std::move(nic_options));
  if (!nic.ok()) return nic.status();
  Responder responder(**nic);
  if (const absl::Status status = responder.Start(); !status.ok())
    return status;
  spdlog::info("responding as node \"{}\"", (*nic)->node());
  responder.Run(stop);
  return absl::OkStatus();
}

// 0: conforms; 1: does not.
absl::StatusOr<int> Judge(const Options& options) {
  auto ports =
      OpenPortsOrDefault(options.ports, PortRole::kClient, "conform");
  if (!ports.ok()) return ports.status();
  if (ports->size() != 1) {
    return absl::InvalidArgumentError(
        "the suite runs over one port: give it with --port");
  }
  RealWorld world;
  Segment segment(std::move(ports->front()), world, options.first_sequence);
  if (!options.pcap.empty()) {
    const absl::Status status = segment.OpenPcap(options.pcap);
    if (!status.ok()) return status;
  }
  RunOptions run;
  run.tier = options.tier == "core"         ? Tier::kCore
             : options.tier == "functional" ? Tier::kFunctional
                                            : Tier::kFull;
  run.filter = options.filter;
  run.except = options.except;
  run.node = options.peer;
  const auto report = Run(segment, run);
  if (!report.ok()) return report.status();
  const bool json_to_stdout = options.want_json && options.json == "-";
  if (!json_to_stdout) std::fputs(ToText(*report).c_str(), stdout);
  if (options.want_json) {
    const absl::Status status = WriteFile(options.json, ToJson(*report));
    if (!status.ok()) return status;
  }
  if (!options.junit.empty()) {
    const absl::Status status = WriteFile(options.junit, ToJunit(*report));
    if (!status.ok()) return status;
  }
  return report->Conforms() ? 0 : 1;
}

void AddOptions(CLI::App& app, Options& options) {
  app.set_version_flag("--version",
                       std::string("tw-conform " TRIPWIRE_VERSION));
  app.add_option("--port", options.ports, kPortHelp);
  app.add_option(
      "--peer", options.peer,
      "Node whose NIC is under test; whichever responds, if not given");
  app.add_option("--tier", options.tier, "core, functional or full")
      ->check(CLI::IsMember({"core", "functional", "full"}))
      ->capture_default_str();
  app.add_flag("--list", options.list,
               "Print every statement with the tests that check it");
  app.add_option("--junit", options.junit, "Write a JUnit report to this file");
  app.add_option("--json", options.json,
                 "Write a JSON report to this file, or to the standard output")
      ->expected(0, 1)
      ->default_str("-");
  app.add_option("--pcap", options.pcap, "Capture all frames in this file");
  app.add_option("--filter", options.filter,
                 "Only tests whose name, or one of whose statements, matches");
  app.add_option("--except", options.except, "And not those that match this");
  app.add_flag(
      "--respond", options.respond,
      "Be the responder beside a Tripwire NIC on --port, until SIGTERM");
  app.add_option("--node", options.node, "With --respond: this node's name");
  app.add_option(
         "--first-sequence", options.first_sequence,
         "Where both sides begin to number frames (1 is the protocol's; "
         "near 4294967296 it tests the wrap)")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40));
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Tests whether a NIC keeps every promise of the Tripwire documents: a "
      "black box, over any port. Beside the NIC under test runs a responder "
      "(--respond, or its own: docs/conformance.md).",
      "tw-conform");
  Options options;
  AddOptions(app, options);
  try {
    app.parse(argc, argv);
    options.want_json = app.count("--json") > 0;
    if (options.want_json && options.json.empty()) options.json = "-";
    for (const std::string& text : {options.filter, options.except}) {
      if (!text.empty()) std::regex check(text);
    }
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      return app.exit(e);
    }
    std::fprintf(stderr, "tw-conform: %s; see tw-conform --help\n", e.what());
    return 2;
  } catch (const std::regex_error& e) {
    std::fprintf(stderr, "tw-conform: no regular expression: %s\n", e.what());
    return 2;
  }
  if (options.list) {
    std::fputs(ListStatements().c_str(), stdout);
    return 0;
  }
  struct sigaction action {};
  action.sa_handler = [](int) { stop = true; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  spdlog::set_default_logger(spdlog::stderr_color_mt("tw-conform"));
  absl::Status status;
  if (options.respond) {
    status = Respond(options);
    if (status.ok()) return 0;
  } else {
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    const auto verdict = Judge(options);
    if (verdict.ok()) return *verdict;
    status = verdict.status();
  }
  std::fprintf(stderr, "tw-conform: %s\n",
               std::string(status.message()).c_str());
  return 2;
}

}  // namespace
}  // namespace tripwire::conform

int main(int argc, char** argv) { return tripwire::conform::Main(argc, argv); }
