package dev.autonomygate;

import java.util.ArrayList;
import java.util.List;

/**
 * Reads a document member by member, for whoever knows what stands in it. What is passed on is taken by {@link #raw()}, as
 * the text that it is: nothing is rounded and nothing written anew. What is not JSON is a {@link Malformed}.
 */
final class JsonReader {
    /** The text is not the document that was expected. */
    static final class Malformed extends RuntimeException {
        private static final long serialVersionUID = 1L;

        private Malformed(String message) {
            super(message);
        }
    }

    private static final int MAX_DEPTH = 64;

    private final String text;
    private int at;
    private int depth;
    /** A bit for each level that is open, the innermost the lowest: 1 is an object, 0 a list. */
    private long objects;
    /** Whether an object or a list was just opened: its first member has no comma before it. */
    private boolean opened;

    JsonReader(String text) {
        this.text = text;
    }

    /** Opens an object: {@link #more()} says whether another member comes, {@link #name()} which. */
    void object() {
        open('{', 1);
    }

    /** Opens a list: {@link #more()} says whether another value comes. */
    void list() {
        open('[', 0);
    }

    /** Whether another member or value comes. Where none does, the object or list is closed. */
    boolean more() {
        if (peek() == ((objects & 1) == 1 ? '}' : ']')) {
            at += 1;
            depth -= 1;
            objects >>>= 1;
            opened = false;
            return false;
        }
        if (!opened) {
            expect(',');
        }
        opened = false;
        return true;
    }

    String name() {
        String name = string();
        expect(':');
        return name;
    }

    String string() {
        expect('"');
        int from = at;
        for (; at < text.length(); at += 1) {
            char next = text.charAt(at);
            if (next == '"') {
                at += 1;
                return text.substring(from, at - 1);
            }
            if (next == '\\' || next < ' ') {
                return escaped(from);
            }
        }
        throw malformed("a string without an end");
    }

    /** A string, or {@code null}. */
    String stringOrNull() {
        return isNull() ? null : string();
    }

    List<String> strings() {
        List<String> strings = new ArrayList<>();
        list();
        while (more()) {
            strings.add(string());
        }
        return List.copyOf(strings);
    }

    /** An integer from 0 to 2^64 - 1, in the bits of a {@code long}. */
    long unsigned() {
        String digits = digits();
        try {
            return Long.parseUnsignedLong(digits);
        } catch (NumberFormatException e) {
            throw malformed("`" + digits + "` is above 2^64 - 1");
        }
    }

    int count() {
        String digits = digits();
        try {
            return Integer.parseInt(digits);
        } catch (NumberFormatException e) {
            throw malformed("`" + digits + "` is above 2^31 - 1");
        }
    }

    boolean isNull() {
        if (peek() != 'n') {
            return false;
        }
        word("null");
        return true;
    }

    /** Any value, as the text that it is. */
    String raw() {
        peek();
        int from = at;
        skip();
        return text.substring(from, at);
    }

    /** The value of the document's last member, unread: all up to the brace that ends the document. */
    String rest() {
        peek();
        int to = text.length() - 1;
        if (depth != 1 || at >= to || text.charAt(to) != '}') {
            throw malformed("no end");
        }
        String rest = text.substring(at, to);
        at = to;
        return rest;
    }

    void skip() {
        switch (peek()) {
            case '{':
                object();
                while (more()) {
                    name();
                    skip();
                }
                break;
            case '[':
                list();
                while (more()) {
                    skip();
                }
                break;
            case '"':
                string();
                break;
            case 't':
                word("true");
                break;
            case 'f':
                word("false");
                break;
            case 'n':
                word("null");
                break;
            default:
                number();
        }
    }

    /** Wants nothing but white space after what was read. */
    void end() {
        space();
        if (at < text.length()) {
            throw malformed("more text where it should end");
        }
    }

    private void open(char bracket, int object) {
        expect(bracket);
        if (depth == MAX_DEPTH) {
            throw malformed("more than " + MAX_DEPTH + " levels");
        }
        depth += 1;
        objects = objects << 1 | object;
        opened = true;
    }

    /** Numbers that nobody here reads: passed on or passed over. */
    private void number() {
        int from = at;
        while (at < text.length() && "+-.0123456789Ee".indexOf(text.charAt(at)) >= 0) {
            at += 1;
        }
        if (at == from) {
            throw malformed("no value");
        }
    }

    private String digits() {
        peek();
        int from = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at += 1;
        }
        if (at == from || (at - from > 1 && text.charAt(from) == '0')) {
            throw malformed("no integer");
        }
        return text.substring(from, at);
    }

    /** The rest of a string that is not the text that it stands for. */
    private String escaped(int from) {
        StringBuilder string = new StringBuilder(text.length() - from).append(text, from, at);
        while (at < text.length()) {
            char next = text.charAt(at++);
            if (next == '"') {
                return string.toString();
            }
            if (next < ' ') {
                throw malformed("a control character in a string");
            }
            string.append(next == '\\' ? escape() : next);
        }
        throw malformed("a string without an end");
    }

    private char escape() {
        char next = at < text.length() ? text.charAt(at++) : 0;
        switch (next) {
            case '"':
            case '\\':
            case '/':
                return next;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int unit = 0;
                for (int end = at + 4; at < end; at += 1) {
                    int digit = at < text.length() ? Character.digit(text.charAt(at), 16) : -1;
                    if (digit < 0) {
                        throw malformed("no such escape");
                    }
                    unit = unit * 16 + digit;
                }
                return (char) unit;
            default:
                throw malformed("no such escape");
        }
    }

    private void word(String word) {
        if (!text.startsWith(word, at)) {
            throw malformed("no value");
        }
        at += word.length();
    }

    private void expect(char expected) {
        if (peek() != expected) {
            throw malformed("no `" + expected + "`");
        }
        at += 1;
    }

    /** The next character that is no white space; NUL at the end. */
    private char peek() {
        space();
        return at < text.length() ? text.charAt(at) : 0;
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at += 1;
        }
    }

    private Malformed malformed(String what) {
        return new Malformed("malformed: " + what + " at character " + at);
    }
}
