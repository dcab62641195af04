# Reads the two files of a NoCloud seed, as far as the demo guests obey them, and writes to files in
# the folder DIR: `instance-id` and `hostname` from meta-data; from user-data `hostname`, `keys`
# (ssh_authorized_keys, wherever it stands) and `runcmd` (a shell script).
#
# Not a YAML parser. It knows block lists, flow lists, quoted, folded and literal strings, which is
# what people write by hand and what YAML libraries print; anything else is passed over.

function starts_with_key(text, name) { return text ~ ("^[\"']?" name "[\"']?[ ]*:([ ]|$)") }

function after_key(text) { sub(/^[^:]*:[ ]*/, "", text); return text }

function without_comment(text) { sub(/[ ]+#.*$/, "", text); sub(/[ ]+$/, "", text); return text }

# The value of a scalar: quotes resolved, comments dropped.
function scalar(text,    quote, body) {
  sub(/^[ ]+/, "", text)
  quote = substr(text, 1, 1)
  if (quote != "\"" && quote != "'") return without_comment(text)
  body = quoted(text, quote)
  return body
}

# The text between a leading quote and its end; `quoted_length` says how much was read.
function quoted(text, quote,    i, letter, next_letter, body) {
  for (i = 2; i <= length(text); i++) {
    letter = substr(text, i, 1)
    next_letter = substr(text, i + 1, 1)
    if (quote == "'" && letter == "'" && next_letter == "'") { body = body "'"; i++ }
    else if (letter == quote) break
    else if (quote == "\"" && letter == "\\") { body = body unescaped(next_letter); i++ }
    else body = body letter
  }
  quoted_length = i
  return body
}

function unescaped(letter) {
  if (letter == "n") return "\n"
  if (letter == "t") return "\t"
  return letter
}

# Splits "[a, 'b', "c"]" into ITEMS and returns how many; -1 while the closing bracket is missing.
function flow_items(text, items,    count, rest, letter, end) {
  rest = substr(text, 2)
  while (1) {
    sub(/^[ ,]+/, "", rest)
    letter = substr(rest, 1, 1)
    if (rest == "") return -1
    if (letter == "]") return count + 0
    if (letter == "\"" || letter == "'") {
      items[++count] = quoted(rest, letter)
      rest = substr(rest, quoted_length + 1)
    } else {
      end = match(rest, /[],]/)
      if (!end) return -1
      items[++count] = without_comment(substr(rest, 1, end - 1))
      rest = substr(rest, end)
    }
  }
}

function shell_quoted(text) { gsub(/'/, "'\\''", text); return "'" text "'" }

# One finished list item: a key, or a command (a flow list is a command in words).
function emit(section, text,    items, count, i, line) {
  if (section == "keys") { if (text != "") print text > (DIR "/keys"); return }
  if (text ~ /^\[/) {
    count = flow_items(text, items)
    for (i = 1; i <= count; i++) line = line (i > 1 ? " " : "") shell_quoted(items[i])
    text = line
  }
  if (text != "") print text > (DIR "/runcmd")
}

function end_item(    text) {
  if (!have_item) return
  have_item = 0
  text = item
  if (style != "|" && style != ">" && text !~ /^\[/) text = scalar(text)
  sub(/\n+$/, "", text)
  emit(section, text)
}

function end_section() { end_item(); section = ""; flow = "" }

function begin_item(text) {
  have_item = 1
  style = substr(text, 1, 1)
  item = (style == "|" || style == ">") ? "" : text
  literal_indent = -1
}

function continue_item(line, indent,    text) {
  text = substr(line, indent + 1)
  if (style == "|") {
    if (literal_indent < 0) literal_indent = indent
    item = item (item == "" ? "" : "\n") substr(line, literal_indent + 1)
  } else if (style == ">" || text !~ /^#/) {
    item = item (item == "" ? "" : " ") text
  }
}

# A flow list that stands right after the key, maybe over several lines.
function continue_flow(    items, count, i) {
  count = flow_items(flow, items)
  if (count < 0) return
  for (i = 1; i <= count; i++) emit(section, items[i])
  end_section()
}

function begin_section(name, column, text) {
  section = name
  section_column = column
  if (text ~ /^\[/) { flow = text; continue_flow() }
  else if (text != "" && text !~ /^#/) { emit(section, scalar(text)); end_section() }
}

# meta-data has plain `name: value` lines; user-data, which is read later, may name the host anew.
function meta_line(line) {
  if (starts_with_key(line, "instance-id")) print scalar(after_key(line)) > (DIR "/instance-id")
  else if (starts_with_key(line, "local-hostname")) hostname = scalar(after_key(line))
}

function top_of_section(line, indent,    text, column) {
  text = substr(line, indent + 1)
  column = indent
  while (match(text, /^-[ ]+/)) { column += RLENGTH; text = substr(text, RLENGTH + 1) }
  if (starts_with_key(text, "ssh[_-]authorized[_-]keys"))
    begin_section("keys", column, after_key(text))
  else if (column == 0 && starts_with_key(text, "runcmd"))
    begin_section("runcmd", 0, after_key(text))
  else if (column == 0 && starts_with_key(text, "hostname")) hostname = scalar(after_key(text))
}

{ sub(/\r$/, ""); gsub(/\t/, " ") }

FILENAME ~ /meta-data$/ { meta_line($0); next }

/^[ ]*$/ { if (have_item && style == "|") item = item "\n"; next }

{
  indent = match($0, /[^ ]/) - 1
  text = substr($0, indent + 1)
  if (flow != "") { flow = flow " " text; continue_flow(); next }
  if (section != "") {
    if (have_item && indent > dash_column) { continue_item($0, indent); next }
    if (text ~ /^#/) next
    if (text ~ /^-( |$)/ && indent >= section_column) {
      end_item()
      dash_column = indent
      sub(/^-[ ]*/, "", text)
      begin_item(text)
      next
    }
    end_section()
  }
  if (text !~ /^#/) top_of_section($0, indent)
}

END {
  end_section()
  if (hostname != "") print hostname > (DIR "/hostname")
}
