//! The enum of `dev.autonomygate:autonomy-gate`.

use std::fmt::Write;

use super::{CLASSES, Reason, digest};

pub(super) fn reasons(reasons: &[Reason]) -> String {
    let mut out = String::from(
        "// Generated from gate-core/reasons.toml by `cargo xtask codegen`; do not edit.\n\
         package dev.autonomygate;\n\n\
         import java.util.HashMap;\nimport java.util.Map;\nimport java.util.Optional;\n\n\
         /** Every reason: its text is what the wire, the log and the metrics say, byte for byte. */\n\
         public enum Reason {\n",
    );
    for (index, reason) in reasons.iter().enumerate() {
        let name = reason.word().to_ascii_uppercase();
        let class = reason.class().to_ascii_uppercase();
        let end = if index + 1 == reasons.len() { ";" } else { ",\n" };
        let _ = writeln!(
            out,
            "    /** {} */\n    {name}(\n            {},\n            Kind.{class},\n            \"{}\",\n            \"{}\"){end}",
            markup(&reason.means),
            reason.number,
            reason.wire,
            reason.remedy,
        );
    }
    out += "\n    /** What gives a reason. */\n    public enum Kind {\n";
    for (index, (class, doc, ..)) in CLASSES.iter().enumerate() {
        let end = if index + 1 == CLASSES.len() { "" } else { "," };
        let _ = writeln!(out, "        /** {doc} */\n        {}{end}", class.to_ascii_uppercase());
    }
    let digest = digest(reasons);
    let _ = writeln!(
        out,
        "    }}\n\n    /** Of all reasons: `reasons` of a module that knows the same ones. */\n    \
         static final String DIGEST =\n            \"{digest}\";\n"
    );
    out += BODY;
    out
}

/// Code in Javadoc.
fn markup(text: &str) -> String {
    text.split('`')
        .enumerate()
        .map(|(index, part)| if index % 2 == 1 { format!("{{@code {part}}}") } else { part.to_owned() })
        .collect()
}

const BODY: &str = r"    private static final Map<Integer, Reason> BY_NUMBER = new HashMap<>();
    private static final Map<String, Reason> BY_TEXT = new HashMap<>();

    static {
        for (Reason reason : values()) {
            BY_NUMBER.put(reason.number, reason);
            BY_TEXT.put(reason.text, reason);
        }
    }

    private final int number;
    private final Kind kind;
    private final String text;
    private final String remedy;

    Reason(int number, Kind kind, String text, String remedy) {
        this.number = number;
        this.kind = kind;
        this.text = text;
        this.remedy = remedy;
    }

    /**
     * The reason of a number.
     *
     * @param number its stable number
     * @return empty where there is none
     */
    public static Optional<Reason> of(int number) {
        return Optional.ofNullable(BY_NUMBER.get(number));
    }

    /**
     * The reason of a text.
     *
     * @param text what the wire says
     * @return empty where there is none
     */
    public static Optional<Reason> of(String text) {
        return Optional.ofNullable(BY_TEXT.get(text));
    }

    /**
     * Its number.
     *
     * @return the number, stable for ever
     */
    public int number() {
        return number;
    }

    /**
     * What gives it.
     *
     * @return its kind
     */
    public Kind kind() {
        return kind;
    }

    /**
     * What the operator does next.
     *
     * @return one line
     */
    public String remedy() {
        return remedy;
    }

    /**
     * What the wire says.
     *
     * @return its text
     */
    @Override
    public String toString() {
        return text;
    }
}
";
