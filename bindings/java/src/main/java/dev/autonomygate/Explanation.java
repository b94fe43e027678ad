package dev.autonomygate;

import java.util.ArrayList;
import java.util.List;

/** Every sub-check at a time, and the facts that they looked at. */
public final class Explanation {
    private final Verdict verdict;
    private final String factsId;
    private final String facts;
    private final List<SubCheck> subChecks;

    private Explanation(Verdict verdict, String factsId, String facts, List<SubCheck> subChecks) {
        this.verdict = verdict;
        this.factsId = factsId;
        this.facts = facts;
        this.subChecks = List.copyOf(subChecks);
    }

    static Explanation read(String document) {
        Verdict verdict = null;
        String factsId = null;
        String facts = null;
        List<SubCheck> subChecks = new ArrayList<>();
        JsonReader in = new JsonReader(document);
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "verdict":
                    verdict = Verdict.parse(in.string());
                    break;
                case "facts_id":
                    factsId = in.string();
                    break;
                case "facts":
                    facts = in.raw();
                    break;
                case "sub_checks":
                    in.list();
                    while (in.more()) {
                        subChecks.add(SubCheck.read(in));
                    }
                    break;
                default:
                    in.skip();
            }
        }
        return new Explanation(verdict, factsId, facts, subChecks);
    }

    /**
     * What the gate finds.
     *
     * @return the verdict
     */
    public Verdict verdict() {
        return verdict;
    }

    /**
     * The id of the facts.
     *
     * @return the SHA-256 of {@link #facts()}
     */
    public String factsId() {
        return factsId;
    }

    /**
     * What the verdict is made on.
     *
     * @return the text of a JSON object, of which the id is the hash
     */
    public String facts() {
        return facts;
    }

    /**
     * All ten, in their order.
     *
     * @return the sub-checks
     */
    public List<SubCheck> subChecks() {
        return subChecks;
    }
}
