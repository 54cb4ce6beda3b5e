// tests/exporters/certificates.h - authorities and certificates for a test, made by the openssl program.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tierlog::exporters::fluentbit::testing {

class Certificates {
 public:
  Certificates() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tierlog-tls-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    for (const char* authority : {"ca", "other-ca"})
      run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" + std::string(authority) +
          " -keyout " + path(authority) + ".key -out " + path(authority) + ".crt");
    sign("server", "subjectAltName=DNS:receiver.test,IP:127.0.0.1");
    sign("client", "subjectAltName=DNS:tierlog.test");
  }
  ~Certificates() { std::filesystem::remove_all(folder_); }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  void sign(const std::string& name, const std::string& extension) const {
    run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " + path(name) +
        ".key -out " + path(name) + ".csr");
    run("printf '" + extension + "' > " + path(name) + ".ext && openssl x509 -req -days 2 -in " + path(name) + ".csr -CA " +
        path("ca") + ".crt -CAkey " + path("ca") + ".key -CAcreateserial -extfile " + path(name) + ".ext -out " + path(name) +
        ".crt");
  }
  void run(const std::string& command) const {
    if (std::system(("( " + command + " ) > " + path("log") + " 2>&1").c_str()) != 0) std::abort();
  }
  std::string folder_;
};

}  // namespace tierlog::exporters::fluentbit::testing
