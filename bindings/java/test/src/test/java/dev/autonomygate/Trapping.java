package dev.autonomygate;

import dev.autonomygate.consumer.TrappingModule;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/** Gates that trap on the tool {@code gate.trap}, in the package of the gate: a user has no choice of the engine. */
public enum Trapping {
    /** As the package's own module is: to bytecode, when the project was built. */
    COMPILED,
    /** As a module that a user brings. */
    INTERPRETED;

    /**
     * A gate that traps on it in each instance.
     *
     * @param builder what it is told
     * @return the gate
     */
    public Gate always(Gate.Builder builder) {
        return builder.load(engines());
    }

    /**
     * A gate that traps on it in its first instance; the next ones are of the package's own module.
     *
     * @param builder what it is told
     * @return the gate
     */
    public Gate once(Gate.Builder builder) {
        Engine.Factory trapping = engines();
        Engine.Factory whole = Engine.compiled();
        AtomicBoolean begun = new AtomicBoolean();
        return builder.load(configuration -> (begun.getAndSet(true) ? whole : trapping).create(configuration));
    }

    /**
     * A gate that traps on it in its first instance; an interrupt stops the next one, and those after it are of the package's
     * own module.
     *
     * @param builder what it is told
     * @return the gate
     */
    public Gate onceThenInterrupted(Gate.Builder builder) {
        Engine.Factory trapping = engines();
        Engine.Factory whole = Engine.compiled();
        AtomicInteger made = new AtomicInteger();
        return builder.load(configuration -> {
            int before = made.getAndIncrement();
            if (before == 1) {
                Thread.currentThread().interrupt();
            }
            return (before == 0 ? trapping : whole).create(configuration);
        });
    }

    /**
     * A gate that traps on it in its first instance; there is room for another one only when it is said.
     *
     * @param builder what it is told
     * @param room whether there is
     * @return the gate
     */
    public Gate without(Gate.Builder builder, AtomicBoolean room) {
        Engine.Factory engines = engines();
        AtomicBoolean begun = new AtomicBoolean();
        return builder.load(configuration -> {
            if (begun.getAndSet(true) && !room.get()) {
                throw new OutOfMemoryError("no room for an instance");
            }
            return engines.create(configuration);
        });
    }

    private Engine.Factory engines() {
        if (this == COMPILED) {
            return Engine.compiled(TrappingModule.load(), TrappingModule::create);
        }
        Path module = Path.of(System.getProperty("autonomy.root"), "target/gate-trap.wasm");
        try {
            return Engine.interpreted(Files.readAllBytes(module));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
