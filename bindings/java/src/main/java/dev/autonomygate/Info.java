package dev.autonomygate;

import java.util.Collections;
import java.util.Map;
import java.util.TreeMap;

/** What the module is. */
public final class Info {
    private final String version;
    private final int abiMajor;
    private final int abiMinor;
    private final String schemaVersion;
    private final String reasons;
    private final Map<String, Long> limits;

    private Info(
            String version, int abiMajor, int abiMinor, String schemaVersion, String reasons, Map<String, Long> limits) {
        this.version = version;
        this.abiMajor = abiMajor;
        this.abiMinor = abiMinor;
        this.schemaVersion = schemaVersion;
        this.reasons = reasons;
        this.limits = Collections.unmodifiableMap(limits);
    }

    static Info read(String document) {
        String version = null;
        int abiMajor = 0;
        int abiMinor = 0;
        String schemaVersion = null;
        String reasons = null;
        Map<String, Long> limits = new TreeMap<>();
        JsonReader in = new JsonReader(document);
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "version":
                    version = in.string();
                    break;
                case "abi":
                    in.object();
                    while (in.more()) {
                        if (in.name().equals("major")) {
                            abiMajor = in.count();
                        } else {
                            abiMinor = in.count();
                        }
                    }
                    break;
                case "schema_version":
                    schemaVersion = in.string();
                    break;
                case "reasons":
                    reasons = in.string();
                    break;
                case "limits":
                    in.object();
                    while (in.more()) {
                        limits.put(in.name(), in.unsigned());
                    }
                    break;
                default:
                    in.skip();
            }
        }
        return new Info(version, abiMajor, abiMinor, schemaVersion, reasons, limits);
    }

    /**
     * The module's version.
     *
     * @return a semantic version
     */
    public String version() {
        return version;
    }

    /**
     * Which ABI it speaks.
     *
     * @return the major version
     */
    public int abiMajor() {
        return abiMajor;
    }

    /**
     * How far its ABI goes.
     *
     * @return the minor version
     */
    public int abiMinor() {
        return abiMinor;
    }

    /**
     * Which manifests it reads.
     *
     * @return the version of their form
     */
    public String schemaVersion() {
        return schemaVersion;
    }

    /**
     * Which reasons it knows.
     *
     * @return the digest of their list
     */
    public String reasons() {
        return reasons;
    }

    /**
     * What it takes at most.
     *
     * @return counts by their name, such as {@code bundle_bytes}
     */
    public Map<String, Long> limits() {
        return limits;
    }
}
