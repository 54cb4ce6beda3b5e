// exporters/fluentbit/record_pack.h - a record as a msgpack map.
//
//   FlowRecord --append_record--> {"id": "018f…", "start_time": "…", …}
//
// Tierlog's own form is written straight from the record; every other one by way of its JSON. Both have the
// same keys, order and types as the JSON of the same format.
#pragma once

#include <string>

#include "exporters/format/record_format.h"
#include "store/record.h"

namespace tierlog::exporters::fluentbit {

// Texts that are not UTF-8 get U+FFFD where they are not: receivers make JSON of them.
void append_record(std::string& out, const RecordFormat& format, const store::FlowRecord& record,
                   const store::Origin& origin);

}  // namespace tierlog::exporters::fluentbit
