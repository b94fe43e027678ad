package autonomygate

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

//go:embed gate.wasm
var embedded []byte

const (
	abiMajor = 1
	// memoryPages are 192 MiB: enough for the largest bundle.
	memoryPages = 192 * 16
	// firstInputBytes is room for any call: a longer one asks for more.
	firstInputBytes = 8 * 1024
	refused         = -2
)

// The functions that are called, in the order of names.
const (
	fnInput = iota
	fnOutputPtr
	fnOutputLen
	fnInfo
	fnConfigure
	fnLoadBundle
	fnSetEnrollment
	fnSetLease
	fnVerdict
	fnDecide
	fnDecideBatch
	fnExplain
	fnVerifySignature
	functions
)

var names = [functions]string{
	"gate_input", "gate_output_ptr", "gate_output_len", "gate_info", "gate_configure", "gate_load_bundle",
	"gate_set_enrollment", "gate_set_lease", "gate_verdict", "gate_decide", "gate_decide_batch", "gate_explain",
	"gate_verify_signature",
}

// compiled keeps the code of each module that was loaded: it is compiled once a process. What hangs on a runtime (its
// instances, their memories) goes with the runtime, so that a gate needs no closing.
var compiled = wazero.NewCompilationCache()

// module makes instances.
type module struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
}

func compile(wasm []byte) (*module, error) {
	ctx := context.Background()
	// Not closed when a context is done: a call takes microseconds, and the check would cost more than it.
	config := wazero.NewRuntimeConfig().WithCompilationCache(compiled).WithMemoryLimitPages(memoryPages)
	runtime := wazero.NewRuntimeWithConfig(ctx, config)
	code, err := runtime.CompileModule(ctx, wasm)
	if err != nil {
		return nil, &failure{ErrUnsupported, fmt.Sprintf("the module cannot be compiled (%s): use the gate.wasm that comes with this package", line(err))}
	}
	for _, imported := range code.ImportedFunctions() {
		from, name, _ := imported.Import()
		return nil, &failure{ErrUnsupported, fmt.Sprintf("the module imports `%s.%s`: gate.wasm imports nothing, load that one", from, name)}
	}
	return &module{runtime, code}, nil
}

// instance is one instance of the decision. An error of kind ErrTrapped means that it is gone.
type instance struct {
	module     api.Module
	functions  [functions]api.Function
	stack      [1]uint64
	input      uint32
	inputBytes uint32
	// What it was told, so that it is told only what is new.
	told told
}

func (m *module) instantiate(configuration []byte) (*instance, error) {
	mod, err := m.runtime.InstantiateModule(context.Background(), m.code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, &failure{ErrUnsupported, fmt.Sprintf("the module cannot be instantiated (%s): use the gate.wasm that comes with this package", line(err))}
	}
	i, err := newInstance(mod)
	if err == nil {
		err = i.run(fnConfigure, configuration)
	}
	if err != nil {
		_ = mod.Close(context.Background())
		return nil, err
	}
	return i, nil
}

func newInstance(mod api.Module) (*instance, error) {
	found := "none"
	if major := mod.ExportedGlobal("gate_abi_major"); major != nil {
		found = fmt.Sprint(int32(major.Get()))
	}
	if found != fmt.Sprint(abiMajor) {
		return nil, &failure{ErrUnsupported, fmt.Sprintf("the module's ABI is `%s`: this package speaks %d, use the gate.wasm that comes with it", found, abiMajor)}
	}
	i := &instance{module: mod}
	for at, name := range names {
		if i.functions[at] = mod.ExportedFunction(name); i.functions[at] == nil {
			return nil, &failure{ErrUnsupported, fmt.Sprintf("the module has no `%s`: use the gate.wasm that comes with this package", name)}
		}
	}
	info, err := i.info()
	if err != nil {
		return nil, err
	}
	if info.Reasons != ReasonsDigest {
		return nil, &failure{ErrUnsupported, fmt.Sprintf("the module knows the reasons `%s`, this package `%s`: use the gate.wasm that comes with it", info.Reasons, ReasonsDigest)}
	}
	_, err = i.room(firstInputBytes)
	return i, err
}

func (i *instance) info() (Info, error) {
	var info Info
	return info, i.ask(&info, fnInfo, 0)
}

// verdict gives 0, the number of a reason, or less than 0 for what is no time.
func (i *instance) verdict(nowMs int64) (int32, error) {
	return i.call(fnVerdict, math.Float64bits(float64(nowMs)))
}

func (i *instance) decide(call *Call, auditID string, nowMs int64) (Decision, error) {
	input, err := i.room(0)
	if err != nil {
		return Decision{}, err
	}
	// Written where the module reads it, unless it is longer than that.
	document := appendCall(input[:0], call, auditID, nowMs)
	bytes := uint64(len(document))
	if len(document) > len(input) {
		if bytes, err = i.write(document); err != nil {
			return Decision{}, err
		}
	}
	number, err := i.call(fnDecide, bytes)
	if err != nil {
		return Decision{}, err
	}
	output, err := i.output()
	if err != nil {
		return Decision{}, err
	}
	if number < 0 {
		return Decision{}, saidError(number, output)
	}
	decision, err := readDecision(string(output), auditID)
	if err != nil {
		return Decision{}, err
	}
	if decision.Reason.Number() != int(number) || (number == 0) != (decision.Effect == Allow) {
		return Decision{}, trapped(fmt.Errorf("gate_decide gave %d and says `%s`", number, decision.Effect))
	}
	return decision, nil
}

// decideBatch gives a line of output for each line of input.
func (i *instance) decideBatch(calls []byte, count int) ([]string, error) {
	length, err := i.write(calls)
	if err != nil {
		return nil, err
	}
	number, err := i.call(fnDecideBatch, length)
	if err != nil {
		return nil, err
	}
	output, err := i.output()
	if err != nil {
		return nil, err
	}
	if number < 0 {
		return nil, saidError(number, output)
	}
	lines := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if int(number) != count || len(lines) != count {
		return nil, trapped(fmt.Errorf("gate_decide_batch gave %d lines for %d calls", number, count))
	}
	return lines, nil
}

// run calls a function that takes bytes and gives nothing but an error.
func (i *instance) run(fn int, input []byte) error {
	length, err := i.write(input)
	if err != nil {
		return err
	}
	return i.done(fn, length)
}

// ask calls a function whose output is a document.
func (i *instance) ask(document any, fn int, argument uint64) error {
	if err := i.done(fn, argument); err != nil {
		return err
	}
	output, err := i.output()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(output, document); err != nil {
		return trapped(err)
	}
	return nil
}

func (i *instance) done(fn int, argument uint64) error {
	number, err := i.call(fn, argument)
	if err != nil || number == 0 {
		return err
	}
	output, err := i.output()
	if err != nil {
		return err
	}
	return saidError(number, output)
}

func (i *instance) call(fn int, argument uint64) (int32, error) {
	i.stack[0] = argument
	if err := i.functions[fn].CallWithStack(context.Background(), i.stack[:]); err != nil {
		return 0, trapped(err)
	}
	return int32(uint32(i.stack[0])), nil
}

// write puts bytes into the input, and gives how many.
func (i *instance) write(input []byte) (uint64, error) {
	room, err := i.room(len(input))
	if err != nil {
		return 0, err
	}
	return uint64(copy(room, input)), nil
}

// room is the input, with at least so many bytes. It moves only when more is asked for than ever before. The memory may
// grow in any call, and another slice is made of it then.
func (i *instance) room(bytes int) ([]byte, error) {
	if bytes > int(i.inputBytes) {
		var at int32
		if bytes <= math.MaxInt32 {
			var err error
			if at, err = i.call(fnInput, uint64(bytes)); err != nil {
				return nil, err
			}
		}
		if at == 0 {
			return nil, &failure{ErrMalformed, fmt.Sprintf("an input of `%d` bytes is larger than the gate takes: send less", bytes)}
		}
		i.input, i.inputBytes = uint32(at), uint32(bytes)
	}
	return i.read(i.input, i.inputBytes)
}

// output is valid until the next call.
func (i *instance) output() ([]byte, error) {
	from, err := i.call(fnOutputPtr, 0)
	if err != nil {
		return nil, err
	}
	length, err := i.call(fnOutputLen, 0)
	if err != nil {
		return nil, err
	}
	return i.read(uint32(from), uint32(length))
}

func (i *instance) read(from, length uint32) ([]byte, error) {
	view, ok := i.module.Memory().Read(from, length)
	if !ok {
		return nil, trapped(fmt.Errorf("%d bytes at %d are outside of the memory", length, from))
	}
	return view, nil
}

// saidError is what the module said is wrong.
func saidError(number int32, output []byte) error {
	var said struct{ Error string }
	if err := json.Unmarshal(output, &said); err != nil || said.Error == "" {
		return trapped(fmt.Errorf("the module gave %d and said nothing", number))
	}
	if number == refused {
		return &failure{ErrRefused, said.Error}
	}
	return &failure{ErrMalformed, said.Error}
}

func trapped(err error) error {
	// A stack trace follows, which says nothing to an operator.
	first, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return &failure{ErrTrapped, "the gate trapped: " + strings.TrimSpace(string(first))}
}

// tell brings an instance to what the gate was told. What was refused before is refused again, and leaves the same facts.
func (i *instance) tell(now told) error {
	if now.bundle != nil && now.bundle != i.told.bundle {
		if _, err := i.loadBundle(*now.bundle); errors.Is(err, ErrTrapped) {
			return err
		}
	}
	again := now.lease != nil && now.lease != i.told.lease
	if again {
		if err := i.setEnrollment(*now.lease); errors.Is(err, ErrTrapped) {
			return err
		}
	}
	if now.enrollment != nil && now.enrollment != now.lease && (again || now.enrollment != i.told.enrollment) {
		if err := i.setEnrollment(*now.enrollment); errors.Is(err, ErrTrapped) {
			return err
		}
	}
	i.told = now
	return nil
}

func (i *instance) loadBundle(tar []byte) (*Bundle, error) {
	length, err := i.write(tar)
	if err != nil {
		return nil, err
	}
	var bundle Bundle
	if err := i.ask(&bundle, fnLoadBundle, length); err != nil {
		return nil, err
	}
	for at := range bundle.Files {
		file := &bundle.Files[at]
		end := file.Offset + file.Size
		if file.Offset < 0 || file.Size < 0 || end > len(tar) {
			return nil, trapped(fmt.Errorf("the file `%s` is outside of its tar", file.Path))
		}
		file.Bytes = tar[file.Offset:end:end]
	}
	return &bundle, nil
}

func (i *instance) setEnrollment(answer Answer) error {
	fn := fnSetEnrollment
	if answer.lease {
		fn = fnSetLease
	}
	length, err := i.write([]byte(answer.text))
	if errors.Is(err, ErrMalformed) {
		// There is no room for it, and what was told before must not stand: no text at all is told in its place.
		if told := i.done(fnSetEnrollment, 0); !errors.Is(told, ErrMalformed) {
			return told
		}
	}
	if err != nil {
		return err
	}
	return i.done(fn, length)
}

func (i *instance) explain(nowMs int64) (*Explanation, error) {
	explanation := new(Explanation)
	return explanation, i.ask(explanation, fnExplain, math.Float64bits(float64(nowMs)))
}
