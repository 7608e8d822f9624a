-- SPDX-License-Identifier: BSD-3-Clause
-- Wireshark dissector of the Tripwire protocol, version 1 (docs/wire-format.md).
-- docs/tools.md says how to use it. One pass over the frames in order finds out
-- what belongs together; what it found is kept by frame number and shown whenever
-- a frame is dissected again.

local tw = Proto("tripwire", "Tripwire")
tw.prefs.checksum = Pref.bool("Check CRC32C", true, "Compute and compare the checksum")

local eth_source = Field.new("eth.src")

local types = {
  [1] = "Acknowledgement", [2] = "Reset", [16] = "Write", [17] = "Read request",
  [18] = "Read response", [19] = "Flush request", [20] = "Flush response", [21] = "Error",
  [22] = "Message", [23] = "Close", [24] = "Atomic request", [25] = "Atomic response",
  [48] = "Discover", [49] = "Announce", [50] = "Connect", [51] = "Accept", [52] = "Reject",
}
local statuses = {
  [2] = "no such handle", [3] = "stale generation", [4] = "no rights", [5] = "out of bounds",
  [7] = "too large", [8] = "misaligned", [9] = "unknown operation",
}
local operations = { [1] = "fetch-add", [2] = "compare-and-swap" }
local reasons = { [0] = "refused", [1] = "no such service" }
-- The fixed part of each type's payload, in bytes.
local fixed = {
  [1] = 32, [2] = 8, [16] = 14, [17] = 20, [18] = 10, [19] = 0, [20] = 4, [21] = 8, [22] = 8,
  [23] = 0, [24] = 32, [25] = 12, [48] = 0, [49] = 0, [50] = 0, [51] = 0, [52] = 0,
}

local f = {}
local function field(name, make, label, ...)
  f[name:gsub("%.", "_")] = make("tripwire." .. name, label, ...)
end
field("version", ProtoField.uint8, "Version")
field("type", ProtoField.uint8, "Type", base.DEC, types)
field("flags", ProtoField.uint16, "Flags", base.HEX)
field("flags.ack_requested", ProtoField.bool, "Acknowledgement requested", 16, nil, 0x0001)
field("flags.checksummed", ProtoField.bool, "Checksummed", 16, nil, 0x0002)
field("flags.last", ProtoField.bool, "Last of its operation", 16, nil, 0x0004)
field("flags.authenticated", ProtoField.bool, "Authenticated", 16, nil, 0x0008)
field("flags.unordered", ProtoField.bool, "Unordered", 16, nil, 0x0010)
field("flags.reserved", ProtoField.uint16, "Reserved", base.HEX, nil, 0x0fe0)
field("flags.hops", ProtoField.uint16, "Hops", base.DEC, nil, 0xf000)
field("link", ProtoField.uint32, "Link (receiver's)", base.HEX)
field("epoch", ProtoField.uint32, "Epoch (receiver's)", base.HEX)
field("sequence", ProtoField.uint32, "Sequence")
field("acknowledged", ProtoField.uint32, "Acknowledged")
field("credit", ProtoField.uint16, "Credit")
field("length", ProtoField.uint16, "Payload length")
field("handle", ProtoField.uint32, "Handle")
field("generation", ProtoField.uint32, "Generation")
field("offset", ProtoField.uint64, "Offset")
field("read_length", ProtoField.uint64, "Length to read")
field("operation", ProtoField.uint32, "Operation (request's sequence)")
field("status", ProtoField.uint8, "Status", base.DEC, statuses)
field("total_length", ProtoField.uint32, "Message length")
field("atomic.operation", ProtoField.uint8, "Atomic operation", base.DEC, operations)
field("atomic.operand", ProtoField.uint64, "Operand")
field("atomic.expected", ProtoField.uint64, "Expected")
field("atomic.value", ProtoField.uint64, "Value before")
field("reset.link", ProtoField.uint32, "Link that is not there", base.HEX)
field("reset.epoch", ProtoField.uint32, "Epoch that is not there", base.HEX)
field("received", ProtoField.bytes, "Received")
field("received.sequence", ProtoField.uint32, "Received early")
field("data", ProtoField.bytes, "Data")
field("extra", ProtoField.bytes, "Unknown bytes")
field("tag", ProtoField.bytes, "Authentication tag")
field("checksum", ProtoField.uint32, "Checksum (CRC32C)", base.HEX)
field("checksum.status", ProtoField.uint8, "Checksum status", base.DEC,
  { [0] = "bad", [1] = "good", [2] = "not checked" })
field("padding", ProtoField.bytes, "Padding")
field("node", ProtoField.string, "Node", base.UNICODE)
field("service", ProtoField.string, "Service", base.UNICODE)
field("token", ProtoField.uint32, "Token", base.HEX)
field("private_data", ProtoField.bytes, "Connection data")
field("max_frame_bytes", ProtoField.uint32, "Largest frame")
field("wants_checksum", ProtoField.bool, "Checksums")
field("features", ProtoField.uint32, "Features", base.HEX)
field("features.atomics", ProtoField.bool, "Atomics", 32, nil, 1)
field("features.unordered", ProtoField.bool, "Unordered", 32, nil, 2)
field("features.hops", ProtoField.bool, "Hops", 32, nil, 4)
field("sender_link", ProtoField.uint32, "Link (sender's)", base.HEX)
field("sender_epoch", ProtoField.uint32, "Epoch (sender's)", base.HEX)
field("reason", ProtoField.uint32, "Reason", base.DEC, reasons)
field("unknown_field", ProtoField.bytes, "Unknown field")
-- Found out, not in the frame.
field("stream", ProtoField.uint32, "Link number in this capture")
field("request_in", ProtoField.framenum, "Request in", base.NONE, frametype.REQUEST)
field("response_in", ProtoField.framenum, "Response in", base.NONE, frametype.RESPONSE)
field("last_response_in", ProtoField.framenum, "Last response in", base.NONE, frametype.RESPONSE)
field("refused_in", ProtoField.framenum, "Refused in", base.NONE, frametype.RESPONSE)
field("time", ProtoField.double, "Time since request (s)")
field("retransmission_of", ProtoField.framenum, "Retransmission of", base.NONE, frametype.DUP_ACK)
field("missing", ProtoField.uint32, "Missing before it")
local list = {}
for _, value in pairs(f) do list[#list + 1] = value end
tw.fields = list

local e = {
  malformed = ProtoExpert.new("tripwire.malformed", "Malformed", expert.group.MALFORMED,
    expert.severity.ERROR),
  checksum = ProtoExpert.new("tripwire.checksum.bad", "Bad checksum", expert.group.CHECKSUM,
    expert.severity.ERROR),
  retransmission = ProtoExpert.new("tripwire.retransmission", "Sent again, or repeated on the way",
    expert.group.SEQUENCE, expert.severity.NOTE),
  early = ProtoExpert.new("tripwire.early", "Early: frames before it are missing",
    expert.group.SEQUENCE, expert.severity.NOTE),
  refused = ProtoExpert.new("tripwire.refused", "Refused", expert.group.RESPONSE_CODE,
    expert.severity.WARN),
  reset = ProtoExpert.new("tripwire.is_reset", "The link is not there (any more)",
    expert.group.SEQUENCE, expert.severity.WARN),
  credit = ProtoExpert.new("tripwire.low_credit", "Less than the full credit",
    expert.group.SEQUENCE, expert.severity.NOTE),
}
local experts = {}
for _, value in pairs(e) do experts[#experts + 1] = value end
tw.experts = experts

-- CRC32C (Castagnoli), one byte at a time.
local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    c = bit32.bxor(bit32.rshift(c, 1), bit32.band(c, 1) == 1 and 0x82f63b78 or 0)
  end
  crc_table[i] = c
end
local function crc32c(bytes)
  local crc = 0xffffffff
  for i = 1, #bytes do
    crc = bit32.bxor(bit32.rshift(crc, 8),
      crc_table[bit32.band(bit32.bxor(crc, bytes:byte(i)), 0xff)])
  end
  return bit32.bnot(crc)
end

-- What is known of the frames so far. A half is one direction of a link: who sends
-- to whom under which name. `info` is by frame number.
local halves, lonely, info, streams
function tw.init()
  halves, lonely, info, streams = {}, {}, {}, 0
end

local function distance(a, b)  -- from b to a, modulo 2^32
  local d = (a - b) % 0x100000000
  return d < 0x80000000 and d or d - 0x100000000
end

local function half_of(from, to, link, epoch)
  local key = from .. ">" .. to .. "/" .. link .. "/" .. epoch
  local half = halves[key]
  if not half then
    half = { way = from .. ">" .. to, back = to .. ">" .. from, seen = {}, stream = streams }
    streams = streams + 1
    halves[key] = half
    lonely[half.way] = lonely[half.way] or {}
    lonely[half.way][half] = true
  end
  return half
end

local function pair(a, b)
  a.peer, b.peer = b, a
  b.stream = a.stream
  lonely[a.way][a], lonely[b.way][b] = nil, nil
end

-- A capture begun in the middle lacks the connect: two directions between the same
-- stations belong together if the one acknowledges what the other is at.
local function look_for_peer(half, acknowledged)
  local found
  for other in pairs(lonely[half.back] or {}) do
    if other.next and math.abs(distance(other.next, acknowledged)) <= 256 then
      if found then return end  -- several could be
      found = other
    end
  end
  if found then pair(found, half) end
end

local is_answer = { [18] = true, [20] = true, [21] = true, [25] = true }

local function analyse_sequenced(half, frame, h, time)
  local note = info[frame]
  local seen = half.seen[h.sequence]
  if seen then
    note.retransmission_of = seen.frame
    return
  end
  half.seen[h.sequence] = { frame = frame, time = time, type = h.type }
  half.next = half.next or h.sequence
  local ahead = distance(h.sequence, half.next)
  if ahead > 0 then
    note.missing = 0
    for s = 0, math.min(ahead, 1024) - 1 do
      if not half.seen[(half.next + s) % 0x100000000] then note.missing = note.missing + 1 end
    end
  end
  while half.seen[half.next] do half.next = (half.next + 1) % 0x100000000 end
  if not (is_answer[h.type] and half.peer and h.operation) then return end
  local request = half.peer.seen[h.operation]
  if not request then return end
  note.request_in = request.frame
  note.time = time - request.time
  note.refuses = types[request.type]
  local asked = info[request.frame]
  if h.type == 21 then
    asked.refused_in, asked.status = frame, h.status
  elseif h.type ~= 18 or asked.response_in == nil then
    asked.response_in = frame
  end
  if h.type == 18 and h.last then asked.last_response_in = frame end
end

-- `h` is what the frame says.
local function analyse(frame, time, from, to, h)
  local note = {}
  info[frame] = note
  local half
  if h.type == 50 and h.sender_link then
    half = half_of(to, from, h.sender_link, h.sender_epoch)
    half.next = half.next or 1
  elseif h.type == 2 then
    half = half_of(to, from, h.reset_link, h.reset_epoch)
  elseif h.type < 48 or h.type == 51 or h.type == 52 then
    half = half_of(from, to, h.link, h.epoch)
  else
    return
  end
  if h.type == 51 and h.sender_link then
    local other = half_of(to, from, h.sender_link, h.sender_epoch)
    half.next, other.next = half.next or 1, other.next or 1
    half.checksum, other.checksum = h.wants_checksum, h.wants_checksum
    if not half.peer and not other.peer then pair(half, other) end
  end
  if h.type < 48 and h.type ~= 2 then
    if not half.peer then look_for_peer(half, h.acknowledged) end
    note.lacks_checksum = half.checksum and not h.checksummed
  end
  if h.type >= 16 and h.type < 48 then analyse_sequenced(half, frame, h, time) end
  note.stream = half.stream
end

-- The fields of a protobuf message, one by one: number, value, its range. Values of
-- four bytes and varints are numbers, others are ranges. Returns what is broken.
local function each_protobuf_field(range, use)
  local at, size = 0, range:len()
  local function varint()
    local value, factor = 0, 1
    for _ = 1, 10 do
      if at >= size then return nil end
      local byte = range(at, 1):uint()
      at = at + 1
      value = value + (byte % 128) * factor
      factor = factor * 128
      if byte < 128 then return value end
    end
  end
  while at < size do
    local begin, tag = at, varint()
    if not tag then return "a tag is cut" end
    local wire, value = tag % 8, nil
    if wire == 0 then
      value = varint()
      if not value then return "a number is cut" end
    elseif wire == 1 or wire == 5 or wire == 2 then
      local length = wire == 1 and 8 or wire == 5 and 4 or varint()
      if not length or length > size - at then return "a field is cut" end
      if wire == 5 then
        value = range(at, 4):le_uint()
      else
        value = length > 0 and range(at, length) or false
      end
      at = at + length
    else
      return "no such kind of field"
    end
    use(math.floor(tag / 8), wire, value, range(begin, at - begin))
  end
end

local bodies = {  -- number = field name
  [48] = { "node", "service", "token" },
  [49] = { "node", "service", "token" },
  [50] = { "sender_link", "sender_epoch", "service", "node", "private_data", "max_frame_bytes",
    "wants_checksum", "features" },
  [51] = { "sender_link", "sender_epoch", "node", "private_data", "max_frame_bytes",
    "wants_checksum", "features" },
  [52] = { "reason" },
}
local wires = { node = 2, service = 2, private_data = 2, token = 5, sender_link = 5,
  sender_epoch = 5, max_frame_bytes = 0, wants_checksum = 0, features = 0, reason = 0 }

local function dissect_control(h, payload, tree)
  local broken = payload and each_protobuf_field(payload, function(number, wire, value, range)
    local name = bodies[h.type][number]
    if not name or wires[name] ~= wire then
      tree:add(f.unknown_field, range)
      return
    end
    if wire == 2 then
      if value and name == "private_data" then
        tree:add(f[name], value)
      else
        local text = value and value:string(ENC_UTF_8) or ""
        tree:add(f[name], value or range, text)
        h[name] = h[name] and h[name] .. "," .. text or text
      end
      return
    end
    if name == "wants_checksum" then value = value ~= 0 end
    h[name] = value
    local item = tree:add(f[name], range, value)
    if name == "features" then
      for _, feature in ipairs({ "atomics", "unordered", "hops" }) do
        item:add(f["features_" .. feature], range, value)
      end
    end
  end)
  if h.type == 52 and not h.reason then h.reason = 0 end  -- not sent when 0
  return broken
end

local function place(h, payload, tree)  -- handle, generation, offset
  h.handle, h.generation = payload(0, 4):le_uint(), payload(4, 4):le_uint()
  h.offset = payload(8, 6):le_uint64()
  tree:add_le(f.handle, payload(0, 4))
  tree:add_le(f.generation, payload(4, 4))
  tree:add(f.offset, payload(8, 6), h.offset)
  return ("%d/%d+%s"):format(h.handle, h.generation, tostring(h.offset))
end

-- Adds the payload of a frame on a link; returns a few words about it.
local payloads = {
  [1] = function(h, p, tree)
    local item, count = tree:add(f.received, p(0, 32)), 0
    for i = 0, 255 do
      if bit32.btest(p(math.floor(i / 8), 1):uint(), bit32.lshift(1, i % 8)) then
        item:add(f.received_sequence, p(math.floor(i / 8), 1), (h.acknowledged + 1 + i) % 0x100000000)
        count = count + 1
      end
    end
    return count > 0 and ("and %d beyond"):format(count) or ""
  end,
  [2] = function(h, p, tree)
    h.reset_link, h.reset_epoch = p(0, 4):le_uint(), p(4, 4):le_uint()
    tree:add_le(f.reset_link, p(0, 4))
    tree:add_le(f.reset_epoch, p(4, 4))
    return ("link=0x%08x epoch=0x%08x"):format(h.reset_link, h.reset_epoch)
  end,
  [16] = function(h, p, tree)
    return ("%s Len=%d"):format(place(h, p, tree), p:len() - 14)
  end,
  [17] = function(h, p, tree)
    local where, length = place(h, p, tree), p(14, 6):le_uint64()
    tree:add(f.read_length, p(14, 6), length)
    return ("%s Len=%s"):format(where, tostring(length))
  end,
  [18] = function(h, p, tree)
    h.operation = p(0, 4):le_uint()
    tree:add_le(f.operation, p(0, 4))
    tree:add(f.offset, p(4, 6), p(4, 6):le_uint64())
    return ("to %d at %s Len=%d"):format(h.operation, tostring(p(4, 6):le_uint64()), p:len() - 10)
  end,
  [20] = function(h, p, tree)
    h.operation = p(0, 4):le_uint()
    tree:add_le(f.operation, p(0, 4))
    return "to " .. h.operation
  end,
  [21] = function(h, p, tree)
    h.operation, h.status = p(0, 4):le_uint(), p(4, 1):uint()
    tree:add_le(f.operation, p(0, 4))
    tree:add(f.status, p(4, 1))
    return ("to %d: %s"):format(h.operation, statuses[h.status] or "status " .. h.status)
  end,
  [22] = function(_, p, tree)
    tree:add_le(f.total_length, p(0, 4))
    tree:add(f.offset, p(4, 4), UInt64(p(4, 4):le_uint(), 0))
    return ("%d of %d at %d"):format(p:len() - 8, p(0, 4):le_uint(), p(4, 4):le_uint())
  end,
  [24] = function(h, p, tree)
    local where, code = place(h, p, tree), p(14, 1):uint()
    tree:add(f.atomic_operation, p(14, 1))
    tree:add_le(f.atomic_operand, p(16, 8))
    tree:add_le(f.atomic_expected, p(24, 8))
    return ("%s %s"):format(operations[code] or "operation " .. code, where)
  end,
  [25] = function(h, p, tree)
    h.operation = p(0, 4):le_uint()
    tree:add_le(f.operation, p(0, 4))
    tree:add_le(f.atomic_value, p(4, 8))
    return "to " .. h.operation
  end,
}
local has_data = { [16] = true, [18] = true, [22] = true }

local function add_header(range, tree)
  local h = {
    version = range(0, 1):uint(), type = range(1, 1):uint(), flags = range(2, 2):le_uint(),
    link = range(4, 4):le_uint(), epoch = range(8, 4):le_uint(),
    sequence = range(12, 4):le_uint(), acknowledged = range(16, 4):le_uint(),
    credit = range(20, 2):le_uint(), length = range(22, 2):le_uint(),
  }
  h.last, h.checksummed = bit32.btest(h.flags, 4), bit32.btest(h.flags, 2)
  h.authenticated = bit32.btest(h.flags, 8)
  tree:add(f.version, range(0, 1))
  tree:add(f.type, range(1, 1))
  local flags = tree:add_le(f.flags, range(2, 2))
  for _, name in ipairs({ "ack_requested", "checksummed", "last", "authenticated", "unordered",
    "reserved", "hops" }) do
    flags:add_le(f["flags_" .. name], range(2, 2))
  end
  for i, name in ipairs({ "link", "epoch", "sequence", "acknowledged" }) do
    tree:add_le(f[name], range(i * 4, 4))
  end
  tree:add_le(f.credit, range(20, 2))
  tree:add_le(f.length, range(22, 2))
  return h
end

-- What is wrong with the frame by itself, or nil: the rules of the receivers' gate.
local function fault(h)
  local source = eth_source()
  if source and bit32.btest(source.range(0, 1):uint(), 1) then return "its source is a group address" end
  if h.version ~= 1 then return "version " .. h.version end
  if not types[h.type] then return "unknown type " .. h.type end
  if h.authenticated then return "version 1 has no method of authentication" end
  if (h.type >= 48 or h.type == 2) and not h.checksummed then return "no checksum" end
  if h.length < fixed[h.type] then return "the payload is too short" end
end

-- What follows the payload. Returns whether the checksum is known to be bad.
local function add_trailer(h, range, tree)
  local at, is_bad = 24 + h.length, false
  if h.authenticated then
    if range:len() - at >= 16 then tree:add(f.tag, range(at, 16)) end
    at = at + 16
  elseif h.checksummed then
    local sent, status = range(at, 4):le_uint(), 2
    local item = tree:add_le(f.checksum, range(at, 4))
    if tw.prefs.checksum then
      local computed = crc32c(range(0, at):raw())
      is_bad = computed ~= sent
      status = is_bad and 0 or 1
      if is_bad then
        item:add_proto_expert_info(e.checksum, ("Bad checksum, should be 0x%08x"):format(computed))
      end
    end
    item:add(f.checksum_status, status):set_generated()
    at = at + 4
  end
  if range:len() > at then tree:add(f.padding, range(at)) end
  return is_bad
end

local function show_findings(note, h, tree)
  local words = ""
  for _, name in ipairs({ "stream", "request_in", "response_in", "last_response_in", "refused_in",
    "time", "retransmission_of", "missing" }) do
    if note[name] ~= nil then tree:add(f[name], note[name]):set_generated() end
  end
  if note.retransmission_of then
    words = " [retransmission]"
    tree:add_proto_expert_info(e.retransmission,
      ("Sent again, or repeated on the way: first in frame %d"):format(note.retransmission_of))
  elseif note.missing and note.missing > 0 then
    words = " [early]"
    tree:add_proto_expert_info(e.early, ("Early: %d frames before it are missing"):format(note.missing))
  end
  if h.type == 21 then
    tree:add_proto_expert_info(e.refused, ("%s refused: %s"):format(note.refuses or "Operation",
      statuses[h.status] or "status " .. h.status))
  elseif note.refused_in then
    words = words .. " [refused]"
  end
  if h.type == 2 then tree:add_proto_expert_info(e.reset) end
  if note.lacks_checksum then
    tree:add_proto_expert_info(e.malformed, "Malformed: frames of this link have checksums")
  end
  if h.type < 48 and h.type ~= 2 and h.credit < 256 then
    tree:add_proto_expert_info(e.credit, ("Credit is %d of 256"):format(h.credit))
  end
  return words
end

local function describe(h, words)
  if h.type >= 48 then
    local text = types[h.type]
    if h.type == 48 then
      text = text .. (" who is %s, who offers %s?"):format(h.node or "there", h.service or "anything")
    elseif h.type == 52 then
      text = text .. ": " .. (reasons[h.reason] or h.reason)
    else
      text = text .. " " .. (h.node or "") .. (h.service and " " .. h.service or "")
    end
    return text
  end
  local text = types[h.type] .. (words ~= "" and " " .. words or "")
  if h.type == 2 then return text end
  if h.type ~= 1 then text = text .. " Seq=" .. h.sequence end
  if h.last and h.type ~= 1 then text = text .. " Last" end
  return text .. " Ack=" .. h.acknowledged
end

function tw.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "Tripwire"
  local range = tvb()
  local tree = root:add(tw, range)
  local function malformed(why)
    tree:add_proto_expert_info(e.malformed, "Malformed: " .. why)
    pinfo.cols.info = "[Malformed: " .. why .. "]"
  end
  if range:len() < 24 then return malformed("the header is cut") end
  local h = add_header(range, tree)
  local trailer = h.authenticated and 16 or h.checksummed and 4 or 0
  if h.length + trailer > range:len() - 24 then return malformed("it is shorter than it says") end
  local is_bad = add_trailer(h, range, tree)
  if is_bad then
    pinfo.cols.info = "[Bad checksum]"
    return  -- nothing of it is to be believed
  end
  local why = fault(h)
  if why then return malformed(why) end
  local words, payload = "", h.length > 0 and range(24, h.length) or nil
  if h.type >= 48 then
    local broken = dissect_control(h, payload, tree)
    if broken then return malformed("the body is no protobuf: " .. broken) end
  else
    if payloads[h.type] then words = payloads[h.type](h, payload, tree) end
    if h.length > fixed[h.type] then
      tree:add(has_data[h.type] and f.data or f.extra, payload(fixed[h.type]))
    end
  end
  if not info[pinfo.number] then
    analyse(pinfo.number, tonumber(pinfo.rel_ts), tostring(pinfo.dl_src), tostring(pinfo.dl_dst), h)
  end
  words = describe(h, words) .. show_findings(info[pinfo.number], h, tree)
  tree:append_text(", " .. types[h.type])
  pinfo.cols.info = words
end

DissectorTable.get("ethertype"):add(0x88b5, tw)
