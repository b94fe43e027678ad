package dev.autonomygate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

/** Reading and writing the documents of the module and the host. */
class JsonTest {
    @Test
    void integersAreExact() {
        JsonReader in = new JsonReader(" { \"a\" : 18446744073709551615 , \"b\":[ ] } ");
        in.object();
        in.more();
        assertEquals("a", in.name());
        assertEquals(-1, in.unsigned());
        in.more();
        in.name();
        assertEquals("[ ]", in.raw());
        assertFalse(in.more());
        in.end();
    }

    @Test
    void stringsAreWhatTheyStandFor() {
        String text = "\"\\\b\f\n\r\t\u0001\u00e9\ud83d\ude80";
        String json = new JsonWriter().member("a", text).end();
        JsonReader in = new JsonReader(json);
        in.object();
        in.more();
        in.name();
        assertEquals(text, in.string());
        assertEquals("{\"a\":\"\ufffdb\ufffd\"}", new JsonWriter().member("a", "\ud800b\udc00").end());
        assertEquals("\u00e9/", new JsonReader("\"\\u00e9\\/\"").string());
    }

    @Test
    void whatIsNoDocumentIsRefused() {
        String deep = "[".repeat(65) + "]".repeat(65);
        for (String text : new String[] {
            "", "{", "[1}", "{\"a\":1]", "{\"a\" 1}", "{\"a\":1,}", "[,1]", "[1 2]", "\"a", "\"\\x\"", "\"\\u00g0\"", "\"\n\"", "nul", "{} {}",
            "{a:1}", deep
        }) {
            JsonReader in = new JsonReader(text);
            assertThrows(JsonReader.Malformed.class, () -> {
                in.skip();
                in.end();
            }, text);
        }
        for (String number : new String[] {"01", "-1", "18446744073709551616", "\"1\"", ""}) {
            assertThrows(JsonReader.Malformed.class, () -> new JsonReader(number).unsigned(), number);
        }
    }
}
