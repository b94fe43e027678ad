package dev.autonomygate;

import java.util.Optional;

/** One frame, to look at. What goes to the log is {@link Frames#json()}. */
public final class Frame {
    private final String kind;
    private final String auditId;
    private final String nodeId;
    private final String attrs;

    private Frame(String kind, String auditId, String nodeId, String attrs) {
        this.kind = kind;
        this.auditId = auditId;
        this.nodeId = nodeId;
        this.attrs = attrs;
    }

    static Frame read(JsonReader in) {
        String kind = null;
        String auditId = null;
        String nodeId = null;
        String attrs = null;
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "kind":
                    kind = in.string();
                    break;
                case "audit_id":
                    auditId = in.string();
                    break;
                case "node_id":
                    nodeId = in.stringOrNull();
                    break;
                case "attrs":
                    attrs = in.raw();
                    break;
                default:
                    in.skip();
            }
        }
        return new Frame(kind, auditId, nodeId, attrs);
    }

    /**
     * What it records.
     *
     * @return {@code autonomy.decision}, {@code autonomy.facts} or {@code autonomy.action}
     */
    public String kind() {
        return kind;
    }

    /**
     * Joins the frames of a call.
     *
     * @return the audit id
     */
    public String auditId() {
        return auditId;
    }

    /**
     * Whose frame it is.
     *
     * @return empty where the gate has no node id
     */
    public Optional<String> nodeId() {
        return Optional.ofNullable(nodeId);
    }

    /**
     * What it says.
     *
     * @return the text of a JSON object
     */
    public String attrs() {
        return attrs;
    }

    @Override
    public String toString() {
        return kind + " " + attrs;
    }
}
