// Who is whom: the digests by a reader of their own, and every way in which a receiver can be wrong.
#include "exporters/fluentbit/handshake.h"

#include <gtest/gtest.h>

#include <msgpack.hpp>

#include "exporters/fluentbit/tag.h"
#include "tests/exporters/sample_records.h"

namespace tierlog::exporters::fluentbit {
namespace {

template <typename... Parts>
std::string message(const Parts&... parts) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(sizeof...(parts));
  (packer.pack(parts), ...);
  return {buffer.data(), buffer.size()};
}

using Options = std::map<std::string, std::string>;
const Secrets kSecrets{"us", "key", "ann", "word"};

TEST(Handshake, Sha512IsTheStandards) {
  // FIPS 180-2, "abc".
  EXPECT_EQ(sha512_hex({"a", "bc"}),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
            "454d4423643ce80e2a9ac94fa54ca49f");
}

TEST(Handshake, PingIsSixTexts) {
  const Helo helo{"nonce", "salt", true};
  const auto ping = make_ping(kSecrets, helo, "made-up");
  ASSERT_TRUE(ping);
  const auto handle = msgpack::unpack(ping->data(), ping->size());
  std::vector<std::string> parts;
  for (const auto& part : handle.get().via.array) {
    ASSERT_EQ(part.type, msgpack::type::STR);
    parts.push_back(part.as<std::string>());
  }
  EXPECT_EQ(parts, (std::vector<std::string>{"PING", "us", "made-up", sha512_hex({"made-upusnoncekey"}), "ann",
                                             sha512_hex({"saltannword"})}));
}

TEST(Handshake, PingNamesNobodyWhereNobodyIsAskedFor) {
  const auto ping = make_ping(kSecrets, {"nonce", "", true}, "made-up");
  ASSERT_TRUE(ping);
  EXPECT_EQ(ping->find("ann"), std::string::npos);
  EXPECT_EQ(make_salt().size(), 32u);
  EXPECT_NE(make_salt(), make_salt());
}

TEST(Handshake, PingRefusesWhatReceiversRefuse) {
  Secrets secrets = kSecrets;
  secrets.user.clear();
  const auto nobody = make_ping(secrets, {"nonce", "salt", true}, "s");
  ASSERT_FALSE(nobody);
  EXPECT_NE(nobody.error().message.find("asks for a user"), std::string::npos);
  secrets.hostname.assign(1000, 'h');
  EXPECT_FALSE(make_ping(secrets, {"nonce", "", true}, "s"));
}

struct HeloCase {
  const char* name;
  std::string bytes;
  Reading reading;
};

class Helos : public ::testing::TestWithParam<HeloCase> {};

TEST_P(Helos, AreRead) {
  Helo helo;
  std::size_t used = 0;
  EXPECT_EQ(read_helo(GetParam().bytes, helo, used), GetParam().reading);
  if (GetParam().reading != Reading::Done) return;
  EXPECT_EQ(helo.nonce, "n");
  EXPECT_EQ(used, GetParam().bytes.size());
  for (std::size_t cut = 0; cut < used; ++cut)
    EXPECT_EQ(read_helo(GetParam().bytes.substr(0, cut), helo, used), Reading::NeedMore) << cut;
}

INSTANTIATE_TEST_SUITE_P(
    Table, Helos,
    ::testing::Values(
        HeloCase{"texts", message("HELO", Options{{"nonce", "n"}, {"auth", "s"}}), Reading::Done},
        HeloCase{"bytes", message("HELO", std::map<std::string, std::vector<char>>{{"nonce", {'n'}}, {"auth", {}}}),
                 Reading::Done},
        HeloCase{"other_keys", message("HELO", Options{{"nonce", "n"}, {"more", "x"}}), Reading::Done},
        HeloCase{"nothing", "", Reading::NeedMore}, HeloCase{"no_options", message("HELO"), Reading::Wrong},
        HeloCase{"options_are_text", message("HELO", "x"), Reading::Wrong},
        HeloCase{"nonce_is_a_number", message("HELO", std::map<std::string, int>{{"nonce", 1}}), Reading::Wrong},
        HeloCase{"another_message", message("PONG", Options{}), Reading::Wrong},
        HeloCase{"ack", "\x81\xa3" "ack\xa1" "a", Reading::Wrong}, HeloCase{"text", "HTTP/1.1 400", Reading::Wrong},
        HeloCase{"endless", std::string("\x92\xa4HELO\xda\x7f\xff", 9) + std::string(5000, 'a'), Reading::Wrong},
        HeloCase{"deep", std::string(100, '\x91'), Reading::Wrong}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(Handshake, KeepaliveIsTheReceiversWord) {
  Helo helo;
  std::size_t used = 0;
  ASSERT_EQ(read_helo(message("HELO", std::map<std::string, bool>{{"keepalive", false}}), helo, used), Reading::Done);
  EXPECT_FALSE(helo.keepalive);
}

struct PongCase {
  const char* name;
  Pong pong;
  const char* says;  // nullptr: accepted
};

class Pongs : public ::testing::TestWithParam<PongCase> {};

TEST_P(Pongs, AreChecked) {
  const Helo helo{"nonce", "", true};
  const PongCase& c = GetParam();
  Pong read;
  std::size_t used = 0;
  ASSERT_EQ(read_pong(message("PONG", c.pong.accepted, c.pong.reason, c.pong.hostname, c.pong.digest), read, used),
            Reading::Done);
  const auto checked = check_pong(read, kSecrets, helo, "salt");
  EXPECT_EQ(checked.has_value(), c.says == nullptr);
  if (checked || c.says == nullptr) return;
  EXPECT_NE(checked.error().message.find(c.says), std::string::npos) << checked.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Table, Pongs,
    ::testing::Values(PongCase{"right", {true, "", "them", sha512_hex({"saltthemnoncekey"})}, nullptr},
                      PongCase{"refused", {false, "wrong password", "them", ""}, "refused us: wrong password"},
                      PongCase{"another_key", {true, "", "them", sha512_hex({"saltthemnonceKEY"})}, "does not know"},
                      PongCase{"no_digest", {true, "", "them", ""}, "does not know"},
                      // Our own digest, sent back by somebody who knows nothing.
                      PongCase{"mirror", {true, "", "us", sha512_hex({"saltusnoncekey"})}, "another name"}),
    [](const auto& param_info) { return param_info.param.name; });

struct TagCase {
  const char* name;
  const char* pattern;
  const char* tag;   // nullptr: an error
  const char* says;  // of it
};

class Tags : public ::testing::TestWithParam<TagCase> {};

TEST_P(Tags, AreMade) {
  const auto pattern = TagPattern::parse(GetParam().pattern);
  ASSERT_EQ(pattern.has_value(), GetParam().tag != nullptr);
  if (!pattern) {
    EXPECT_NE(pattern.error().message.find(GetParam().says), std::string::npos) << pattern.error().message;
    return;
  }
  std::string tag;
  pattern->append(tag, testing::denied_record(1).record, testing::kOrigin);
  EXPECT_EQ(tag, GetParam().tag);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Tags,
    ::testing::Values(TagCase{"fixed", "tierlog.flows", "tierlog.flows", ""},
                      TagCase{"two", "tierlog.{action}.{tier}", "tierlog.deny.platform", ""},
                      TagCase{"ends_with_text", "{cluster}.{dst_namespace}.x", "c1.tenant-01.x", ""},
                      TagCase{"unknown", "x.{acton}", nullptr, "did you mean {action}?"},
                      TagCase{"ports_are_no_tags", "x.{src_port}", nullptr, "unknown field {src_port}"},
                      TagCase{"open", "x.{action", nullptr, "without its other"},
                      TagCase{"close", "x.action}", nullptr, "without its other"},
                      TagCase{"empty", "", nullptr, "empty"}),
    [](const auto& param_info) { return param_info.param.name; });

}  // namespace
}  // namespace tierlog::exporters::fluentbit
