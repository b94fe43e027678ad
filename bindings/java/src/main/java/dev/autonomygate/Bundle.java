package dev.autonomygate;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/** A bundle that is active. */
public final class Bundle {
    /** One of its files. */
    public static final class File {
        private final String path;
        private final String digest;
        private final byte[] tar;
        private final int offset;
        private final int size;

        private File(String path, String digest, byte[] tar, int offset, int size) {
            this.path = path;
            this.digest = digest;
            this.tar = tar;
            this.offset = offset;
            this.size = size;
        }

        private static File read(JsonReader in, byte[] tar) {
            String path = null;
            String digest = null;
            int offset = 0;
            int size = 0;
            in.object();
            while (in.more()) {
                switch (in.name()) {
                    case "path":
                        path = in.string();
                        break;
                    case "digest":
                        digest = in.string();
                        break;
                    case "offset":
                        offset = in.count();
                        break;
                    case "size":
                        size = in.count();
                        break;
                    default:
                        in.skip();
                }
            }
            return new File(path, digest, tar, offset, size);
        }

        /**
         * Where it lies in the bundle.
         *
         * @return its path
         */
        public String path() {
            return path;
        }

        /**
         * What its bytes hash to.
         *
         * @return {@code sha256:} and hexadecimal digits
         */
        public String digest() {
            return digest;
        }

        /**
         * Where its bytes begin in the tar.
         *
         * @return the offset
         */
        public int offset() {
            return offset;
        }

        /**
         * How many bytes it has.
         *
         * @return its size
         */
        public int size() {
            return size;
        }

        /**
         * Its bytes.
         *
         * @return a copy
         */
        public byte[] bytes() {
            return Arrays.copyOfRange(tar, offset, offset + size);
        }

        @Override
        public String toString() {
            return path;
        }
    }

    private final String digest;
    private final String name;
    private final String version;
    private final String channel;
    private final String policyVersion;
    private final String schemaVersion;
    private final String policyRef;
    private final String enrollmentRef;
    private final List<File> files;
    private final List<String> signers;

    private Bundle(
            String digest,
            String name,
            String version,
            String channel,
            String policyVersion,
            String schemaVersion,
            String policyRef,
            String enrollmentRef,
            List<File> files,
            List<String> signers) {
        this.digest = digest;
        this.name = name;
        this.version = version;
        this.channel = channel;
        this.policyVersion = policyVersion;
        this.schemaVersion = schemaVersion;
        this.policyRef = policyRef;
        this.enrollmentRef = enrollmentRef;
        this.files = List.copyOf(files);
        this.signers = signers;
    }

    static Bundle read(String document, byte[] tar) {
        String digest = null;
        String name = null;
        String version = null;
        String channel = null;
        String policyVersion = null;
        String schemaVersion = null;
        String policyRef = null;
        String enrollmentRef = null;
        List<File> files = new ArrayList<>();
        List<String> signers = List.of();
        JsonReader in = new JsonReader(document);
        in.object();
        while (in.more()) {
            switch (in.name()) {
                case "digest":
                    digest = in.string();
                    break;
                case "name":
                    name = in.string();
                    break;
                case "version":
                    version = in.string();
                    break;
                case "channel":
                    channel = in.string();
                    break;
                case "policy_version":
                    policyVersion = in.string();
                    break;
                case "schema_version":
                    schemaVersion = in.string();
                    break;
                case "policy_ref":
                    policyRef = in.stringOrNull();
                    break;
                case "enrollment_ref":
                    enrollmentRef = in.stringOrNull();
                    break;
                case "files":
                    in.list();
                    while (in.more()) {
                        files.add(File.read(in, tar));
                    }
                    break;
                case "signers":
                    signers = in.strings();
                    break;
                default:
                    in.skip();
            }
        }
        return new Bundle(
                digest, name, version, channel, policyVersion, schemaVersion, policyRef, enrollmentRef, files, signers);
    }

    /**
     * Its identity.
     *
     * @return {@code sha256:} and hexadecimal digits
     */
    public String digest() {
        return digest;
    }

    /**
     * What it is called.
     *
     * @return its name
     */
    public String name() {
        return name;
    }

    /**
     * Which one of that name.
     *
     * @return a semantic version
     */
    public String version() {
        return version;
    }

    /**
     * For whom it is.
     *
     * @return {@code dev}, {@code canary} or {@code stable}
     */
    public String channel() {
        return channel;
    }

    /**
     * The version of its policies.
     *
     * @return as the manifest has it
     */
    public String policyVersion() {
        return policyVersion;
    }

    /**
     * The version of its manifest's form.
     *
     * @return such as {@code 1.2}
     */
    public String schemaVersion() {
        return schemaVersion;
    }

    /**
     * What calls name that its policies answered: {@link PolicyAnswer#withRef}.
     *
     * @return empty where name and version are too long for one
     */
    public Optional<String> policyRef() {
        return Optional.ofNullable(policyRef);
    }

    /**
     * The enrollment it declares.
     *
     * @return empty below schema 1.2 and where none is declared
     */
    public Optional<String> enrollmentRef() {
        return Optional.ofNullable(enrollmentRef);
    }

    /**
     * What it holds.
     *
     * @return its files in their order
     */
    public List<File> files() {
        return files;
    }

    /**
     * Who signed it.
     *
     * @return the ids of the trusted keys that have
     */
    public List<String> signers() {
        return signers;
    }

    @Override
    public String toString() {
        return name + "@" + version + " " + digest;
    }
}
