package dev.autonomygate;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/**
 * The frames of one call: they are appended as one batch, durable before the tool runs and before the caller is answered.
 *
 * <p>What goes to the log is {@link #json()}, byte for byte: it is hashed. Iterate to look at the frames.
 */
public final class Frames implements Iterable<Frame> {
    static final Frames NONE = new Frames("[]");

    private final String json;

    Frames(String json) {
        this.json = json;
    }

    /**
     * The frames as the module wrote them.
     *
     * @return the text of a JSON array
     */
    public String json() {
        return json;
    }

    /**
     * Reads the frames.
     *
     * @return them in their order
     */
    public List<Frame> list() {
        List<Frame> frames = new ArrayList<>();
        JsonReader in = new JsonReader(json);
        in.list();
        while (in.more()) {
            frames.add(Frame.read(in));
        }
        return List.copyOf(frames);
    }

    @Override
    public Iterator<Frame> iterator() {
        return list().iterator();
    }

    @Override
    public String toString() {
        return json;
    }
}
