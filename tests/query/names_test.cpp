// What an empty listing says of names that nobody has.
#include "query/names.h"

#include <gtest/gtest.h>

#include "tests/store/sample.h"

namespace tierlog::query {
namespace {

using Field = store::FieldFilter::Field;
namespace sample = store::sample;

class Names : public testing::Test {
 protected:
  Names() {
    auto store = sample::open_store(path_);
    store::FlowRecord record = sample::allowed();
    record.dst_service = "shop/front";
    policy::Cluster cluster;
    cluster.services.push_back({});
    cluster.services.back().service_namespace = "shop";
    cluster.services.back().name = "quiet";
    if (!store.put_catalog(sample::catalog()) || !store.insert(std::vector{record}) ||
        !store.put_moment({sample::at(0), 1, true, {{"a.yaml", "x"}}, {}}, cluster, {}))
      throw std::runtime_error("the sample was not written");
  }
  // Empty: the name is known.
  std::string refusal(Field field, const std::string& value) {
    auto reader = store::FlowReader::open(path_);
    store::FlowQuery query;
    query.filters = {{field, {value}, false}};
    const auto known = require_known_names(*reader, query);
    if (known) return "";
    EXPECT_EQ(known.error().code, ErrorCode::NotFound);
    return known.error().message;
  }

  sample::Folder folder_;
  const std::string path_ = folder_.file("flows.db");
};

TEST_F(Names, OfServicesAreThoseOfRecordsAndOfTheHistory) {
  for (const char* known : {"front", "shop/front", "quiet", "shop/quiet", "10.96.0.1", "nosuch*"})
    EXPECT_EQ(refusal(Field::Service, known), "") << known;
  EXPECT_EQ(refusal(Field::Service, "nosuch"), "no Service is called \"nosuch\", now or in any record");
  EXPECT_EQ(refusal(Field::Service, "shop/quite"),
            "no Service is called \"shop/quite\", now or in any record; did you mean shop/quiet?");
  EXPECT_EQ(refusal(Field::Service, "other/front"), "no Service is called \"other/front\", now or in any record");
}

TEST_F(Names, OfServicesThatWereTakenForPodsAreSaid) {
  for (const Field field : {Field::To, Field::Pod})
    for (const std::string name : {"shop/front", "front", "quiet"})
      EXPECT_EQ(refusal(field, name), "no pod is called \"" + name + "\", but a Service is: ask with --service " + name);
  EXPECT_EQ(refusal(Field::From, "shop/front"), "no pod is called \"shop/front\", now or in any record")
      << "no Service is a source";
}

}  // namespace
}  // namespace tierlog::query
