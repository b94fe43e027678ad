package dev.autonomygate;

import com.dylibso.chicory.runtime.ByteArrayMemory;
import com.dylibso.chicory.runtime.ExportFunction;
import com.dylibso.chicory.runtime.Instance;
import com.dylibso.chicory.runtime.Machine;
import com.dylibso.chicory.runtime.Memory;
import com.dylibso.chicory.wasm.ChicoryException;
import com.dylibso.chicory.wasm.Parser;
import com.dylibso.chicory.wasm.WasmModule;
import com.dylibso.chicory.wasm.types.MemoryLimits;
import dev.autonomygate.wasm.GateModule;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * One instance of the module, and its plain ABI: bytes in, a number and bytes out. It serves one call at a time. Whatever it
 * throws that is no {@link GateException} is a trap or came of an interrupt, and it must not be called again.
 */
final class Engine {
    /** Makes instances of one module, all told the same configuration. */
    interface Factory {
        Engine create(String configuration);
    }

    private static final String ABI_MAJOR = "1";
    private static final int REFUSED = -2;
    /** Room for any call: a longer text asks for more. */
    private static final int FIRST_INPUT_BYTES = 8 * 1024;
    /** 192 MiB: enough for the largest bundle. */
    private static final int MAX_PAGES = 3072;

    private static final char REPLACEMENT = '\uFFFD';

    private final Memory memory;
    private final ExportFunction input;
    private final ExportFunction outputPtr;
    private final ExportFunction outputLen;
    private final ExportFunction info;
    private final ExportFunction loadBundle;
    private final ExportFunction setEnrollment;
    private final ExportFunction setLease;
    private final ExportFunction verdict;
    private final ExportFunction decide;
    private final ExportFunction decideBatch;
    private final ExportFunction explain;
    private int inputAt;
    private int inputBytes;

    private Engine(Instance instance, String configuration) {
        requireAbi(instance);
        memory = exported("memory", () -> instance.exports().memory("memory"));
        input = function(instance, "gate_input");
        outputPtr = function(instance, "gate_output_ptr");
        outputLen = function(instance, "gate_output_len");
        info = function(instance, "gate_info");
        loadBundle = function(instance, "gate_load_bundle");
        setEnrollment = function(instance, "gate_set_enrollment");
        setLease = function(instance, "gate_set_lease");
        verdict = function(instance, "gate_verdict");
        decide = function(instance, "gate_decide");
        decideBatch = function(instance, "gate_decide_batch");
        explain = function(instance, "gate_explain");
        reserve(FIRST_INPUT_BYTES);
        done(call(function(instance, "gate_configure"), utf8(configuration)));
    }

    /** Instances of the module that was compiled when this package was built. */
    static Factory compiled() {
        return compiled(GateModule.load(), GateModule::create);
    }

    /** Instances of a module that was compiled like that, which a machine runs. */
    static Factory compiled(WasmModule module, Function<Instance, Machine> machine) {
        return configuration -> new Engine(builder(module).withMachineFactory(machine).build(), configuration);
    }

    /** Instances of another module, which is interpreted. */
    static Factory interpreted(byte[] bytes) {
        WasmModule module = parse(bytes);
        return configuration -> new Engine(builder(module).build(), configuration);
    }

    private static WasmModule parse(byte[] bytes) {
        WasmModule module;
        try {
            module = Parser.parse(bytes);
        } catch (ChicoryException e) {
            throw new GateException(
                    GateException.Kind.UNSUPPORTED, "the module is no WebAssembly: " + GateException.line(e), e);
        }
        if (module.importSection().importCount() > 0) {
            throw GateException.unsupported("the module imports something: gate.wasm imports nothing, load that one");
        }
        return module;
    }

    private static Instance.Builder builder(WasmModule module) {
        int pages = module.memorySection().map(section -> section.getMemory(0).limits().initialPages()).orElse(0);
        return Instance.builder(module)
                .withMemoryFactory(ByteArrayMemory::new)
                .withMemoryLimits(new MemoryLimits(pages, MAX_PAGES));
    }

    private static void requireAbi(Instance instance) {
        String found;
        try {
            found = Long.toString(instance.exports().global("gate_abi_major").getValue());
        } catch (ChicoryException e) {
            found = "none";
        }
        if (!found.equals(ABI_MAJOR)) {
            throw GateException.unsupported("the module's ABI is `" + found + "`: this package speaks " + ABI_MAJOR
                    + ", use the gate.wasm that comes with it");
        }
    }

    private static ExportFunction function(Instance instance, String name) {
        return exported(name, () -> instance.exports().function(name));
    }

    private static <T> T exported(String name, Supplier<T> export) {
        try {
            return export.get();
        } catch (ChicoryException e) {
            String message = "the module has no `" + name + "`: use the gate.wasm that comes with this package";
            throw new GateException(GateException.Kind.UNSUPPORTED, message, e);
        }
    }

    long memoryBytes() {
        return (long) memory.pages() * Memory.PAGE_SIZE;
    }

    Info info() {
        done(number(info.apply()));
        return Info.read(output());
    }

    Bundle loadBundle(byte[] tar) {
        done(call(loadBundle, tar));
        return Bundle.read(output(), tar);
    }

    void tell(Answer answer) {
        byte[] bytes;
        try {
            bytes = answer.lease != null ? answer.lease : wellFormed(answer.json);
            reserve(bytes.length);
        } catch (GateException untold) {
            // What was told before must not stand: no text at all is told in its place.
            setEnrollment.apply(0);
            throw untold;
        }
        done(call(answer.lease != null ? setLease : setEnrollment, bytes));
    }

    int verdict(double nowMs) {
        return number(verdict.apply(Double.doubleToRawLongBits(nowMs)));
    }

    Decision decide(Call call) {
        int number = call(decide, utf8(call.document()));
        if (number < 0) {
            done(number);
        }
        return Decision.read(number, new JsonReader(output()), call.auditId);
    }

    List<Decided> decideBatch(List<Call> calls) {
        StringBuilder lines = new StringBuilder();
        for (Call call : calls) {
            lines.append(call.document()).append('\n');
        }
        lines.setLength(lines.length() - 1);
        int number = call(decideBatch, utf8(lines.toString()));
        if (number < 0) {
            done(number);
        }
        String[] answers = output().split("\n");
        if (number != calls.size() || answers.length != number) {
            throw new IllegalStateException("gate_decide_batch gave " + number + " lines for " + calls.size() + " calls");
        }
        List<Decided> decided = new ArrayList<>(number);
        for (int at = 0; at < number; at += 1) {
            try {
                decided.add(Decided.of(Decision.read(new JsonReader(answers[at]), calls.get(at).auditId)));
            } catch (GateException malformed) {
                decided.add(Decided.of(malformed));
            }
        }
        return decided;
    }

    Explanation explain(double nowMs) {
        done(number(explain.apply(Double.doubleToRawLongBits(nowMs))));
        return Explanation.read(output());
    }

    private int call(ExportFunction function, byte[] bytes) {
        reserve(bytes.length);
        memory.write(inputAt, bytes);
        return number(function.apply(bytes.length));
    }

    /** Asks for room. The buffer moves only when more is asked for than ever before. */
    private void reserve(int bytes) {
        if (bytes <= inputBytes) {
            return;
        }
        int at = number(input.apply(bytes));
        if (at == 0) {
            throw GateException.malformed("an input of `" + bytes + "` bytes is larger than the gate takes: send less");
        }
        // A host without unsigned integers masks them; the memory is capped far below 2 GiB.
        if (at < 0) {
            throw new IllegalStateException("gate_input gave an address outside the memory");
        }
        inputAt = at;
        inputBytes = bytes;
    }

    private void done(int number) {
        if (number == 0) {
            return;
        }
        JsonReader in = new JsonReader(output());
        in.object();
        in.more();
        if (!in.name().equals("error")) {
            throw new IllegalStateException("the module gave `" + number + "` without an error");
        }
        String error = in.string();
        throw number == REFUSED ? GateException.refused(error) : GateException.malformed(error);
    }

    private String output() {
        int at = number(outputPtr.apply());
        int length = number(outputLen.apply());
        byte[] bytes = memory.readBytes(at, length);
        String text = new String(bytes, StandardCharsets.UTF_8);
        return text.indexOf(REPLACEMENT) < 0 ? text : strict(bytes);
    }

    /** Bytes that are no text are a defect; a replacement character that the text really has is none. */
    private static String strict(byte[] bytes) {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException e) {
            throw new IllegalStateException("the module gave what is no text", e);
        }
    }

    private static int number(long[] results) {
        return (int) results[0];
    }

    /** Half a surrogate pair would be encoded as a question mark: another answer than the one that was given. */
    private static byte[] wellFormed(String answer) {
        try {
            ByteBuffer bytes = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(answer));
            return Arrays.copyOf(bytes.array(), bytes.limit());
        } catch (CharacterCodingException e) {
            throw GateException.malformed("the answer holds half a surrogate pair, which is no text: give it as it came");
        }
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
