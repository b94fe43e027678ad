package dev.autonomygate;

import java.util.Optional;

/**
 * What comes of a call. Append its frames, wait until they are durable, and only then run the tool or answer the denial: a
 * {@link Guard} does that.
 */
public final class Decision {
    private final Effect effect;
    private final Reason reason;
    private final Verdict verdict;
    private final String facts;
    private final Frames frames;
    private final String auditId;

    private Decision(Effect effect, Reason reason, Verdict verdict, String facts, Frames frames, String auditId) {
        this.effect = effect;
        this.reason = reason;
        this.verdict = verdict;
        this.facts = facts;
        this.frames = frames;
        this.auditId = auditId;
    }

    /** What {@code gate_decide} gave: its number and its output say the same. */
    static Decision read(int number, JsonReader in, String auditId) {
        Decision decision = read(in, auditId);
        if (number != (decision.reason == null ? 0 : decision.reason.number())) {
            throw new IllegalStateException("gate_decide gave " + number + " and says `" + decision.reason + "`");
        }
        return decision;
    }

    /** All of a decision. Its frames stand last, and are passed on unread, as the text that they are. */
    static Decision read(JsonReader in, String auditId) {
        String effect = null;
        Reason reason = null;
        Verdict verdict = null;
        String facts = null;
        Frames frames = null;
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "effect":
                    effect = in.string();
                    break;
                case "reason":
                    reason = in.isNull() ? null : reason(in.string());
                    break;
                case "verdict":
                    verdict = in.isNull() ? null : Verdict.parse(in.string());
                    break;
                case "facts":
                    facts = in.string();
                    break;
                case "frames":
                    frames = new Frames(in.rest());
                    break;
                case "error":
                    throw GateException.malformed(in.string());
                default:
                    in.skip();
            }
        }
        in.end();
        boolean allows = "allow".equals(effect);
        if (facts == null || frames == null || allows != (reason == null) || !allows && !"deny".equals(effect)) {
            throw new IllegalStateException("the module gave what is no decision");
        }
        return new Decision(allows ? Effect.ALLOW : Effect.DENY, reason, verdict, facts, frames, auditId);
    }

    /** A denial that no instance could put into frames. */
    static Decision unrecordable(String auditId) {
        return new Decision(Effect.DENY, Reason.WAL_UNAVAILABLE, null, null, Frames.NONE, auditId);
    }

    private static Reason reason(String text) {
        return Reason.of(text).orElseThrow(() -> new IllegalStateException("`" + text + "` is no reason"));
    }

    /**
     * Whether the tool may run, once the frames are durable.
     *
     * @return the effect
     */
    public Effect effect() {
        return effect;
    }

    /**
     * Why it may not.
     *
     * @return empty when it may
     */
    public Optional<Reason> reason() {
        return Optional.ofNullable(reason);
    }

    /**
     * What the gate found.
     *
     * @return empty when it was not asked
     */
    public Optional<Verdict> verdict() {
        return Optional.ofNullable(verdict);
    }

    /**
     * The id of the facts it was decided on: the next call's {@link Call#withFactsLogged}, once the frames are durable.
     *
     * @return empty where no instance could decide
     */
    public Optional<String> facts() {
        return Optional.ofNullable(facts);
    }

    /**
     * What must be durable before the tool runs and before the caller is answered.
     *
     * @return the frames
     */
    public Frames frames() {
        return frames;
    }

    /**
     * Joins the frames of the call.
     *
     * @return the audit id
     */
    public String auditId() {
        return auditId;
    }

    @Override
    public String toString() {
        return effect == Effect.ALLOW ? "allow" : "deny, " + reason;
    }
}
