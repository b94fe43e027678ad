package dev.autonomygate;

/** Writes an object as compact JSON, member by member. */
final class JsonWriter {
    private final StringBuilder out;

    JsonWriter() {
        out = new StringBuilder(320).append('{');
    }

    JsonWriter member(String name, String value) {
        name(name);
        if (value == null) {
            out.append("null");
        } else {
            quote(value);
        }
        return this;
    }

    /** A member that is left out where there is no value. */
    JsonWriter optional(String name, String value) {
        return value == null ? this : member(name, value);
    }

    JsonWriter member(String name, long value) {
        name(name);
        out.append(value);
        return this;
    }

    JsonWriter member(String name, Iterable<String> values) {
        name(name);
        out.append('[');
        String comma = "";
        for (String value : values) {
            out.append(comma);
            quote(value);
            comma = ",";
        }
        out.append(']');
        return this;
    }

    /** A member whose value is JSON already. */
    JsonWriter raw(String name, String json) {
        name(name);
        out.append(json);
        return this;
    }

    /** Ends the object and gives it. */
    String end() {
        return out.append('}').toString();
    }

    private void name(String name) {
        if (out.length() > 1) {
            out.append(',');
        }
        out.append('"').append(name).append("\":");
    }

    private void quote(String value) {
        out.append('"');
        for (int at = 0; at < value.length(); at += 1) {
            char next = value.charAt(at);
            if (next == '"' || next == '\\') {
                out.append('\\').append(next);
            } else if (next < ' ') {
                out.append(String.format("\\u%04x", (int) next));
            } else if (Character.isHighSurrogate(next) && Character.isSupplementaryCodePoint(value.codePointAt(at))) {
                out.append(value, at, at + 2);
                at += 1;
            } else {
                // Half a pair is no text, and would be encoded as a question mark, which names may have.
                out.append(Character.isSurrogate(next) ? '\uFFFD' : next);
            }
        }
        out.append('"');
    }
}
