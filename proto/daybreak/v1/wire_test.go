package daybreakv1_test

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const wireLock = "testdata/wire.lock"

// TestWire refuses a change that would make an older agent, client or stored object misread a newer one. testdata/wire.lock
// has a line for every field number, enum value and call that was ever released. -update adds lines and takes none away;
// a field that goes must be reserved in its message, by number.
func TestWire(t *testing.T) {
	now := wireLines(t)
	text, err := os.ReadFile(wireLock)
	if err != nil && !(*update && os.IsNotExist(err)) {
		t.Fatal(err)
	}
	locked := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if line != "" {
			locked[line] = true
		}
	}
	for line := range locked {
		if !now[line] && !now[reservation(line)] {
			t.Errorf("WIRE-breaking change: %q is gone or different; keep it, or reserve its number", line)
		}
	}
	if *update {
		writeLock(t, locked, now)
		return
	}
	for line := range now {
		if !locked[line] && !strings.HasPrefix(line, "reserved ") {
			t.Errorf("%q is not in %s: run go test ./proto/daybreak/v1 -run TestWire -update", line, wireLock)
		}
	}
}

func writeLock(t *testing.T, locked, now map[string]bool) {
	t.Helper()
	for line := range now {
		if !strings.HasPrefix(line, "reserved ") {
			locked[line] = true
		}
	}
	lines := make([]string, 0, len(locked))
	for line := range locked {
		lines = append(lines, line)
	}
	sort.Strings(lines)
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wireLock, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reservation turns "field M 3 …" into the line that a message has which reserves the number.
func reservation(line string) string {
	parts := strings.Fields(line)
	if len(parts) < 3 || parts[0] == "rpc" {
		return "never"
	}
	return fmt.Sprintf("reserved %s %s", parts[1], parts[2])
}

func wireLines(t *testing.T) map[string]bool {
	t.Helper()
	request := compile(t)
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: request.ProtoFile})
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if file.Package() != "daybreak.v1" {
			return true
		}
		messageLines(file.Messages(), lines)
		enumLines(file.Enums(), lines)
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				lines[fmt.Sprintf("rpc %s %s>%s %t>%t", m.FullName(), m.Input().FullName(), m.Output().FullName(),
					m.IsStreamingClient(), m.IsStreamingServer())] = true
			}
		}
		return true
	})
	return lines
}

func messageLines(messages protoreflect.MessageDescriptors, lines map[string]bool) {
	for i := range messages.Len() {
		message := messages.Get(i)
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			kind := field.Kind().String()
			if field.Message() != nil {
				kind = string(field.Message().FullName())
			}
			if field.Enum() != nil {
				kind = string(field.Enum().FullName())
			}
			lines[fmt.Sprintf("field %s %d %s %s %s", message.FullName(), field.Number(), field.Name(), field.Cardinality(), kind)] = true
		}
		ranges := message.ReservedRanges()
		for j := range ranges.Len() {
			for n := ranges.Get(j)[0]; n < ranges.Get(j)[1] && n < ranges.Get(j)[0]+1000; n++ {
				lines[fmt.Sprintf("reserved %s %d", message.FullName(), n)] = true
			}
		}
		messageLines(message.Messages(), lines)
		enumLines(message.Enums(), lines)
	}
}

func enumLines(enums protoreflect.EnumDescriptors, lines map[string]bool) {
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		for j := range values.Len() {
			value := values.Get(j)
			lines[fmt.Sprintf("value %s %d %s", enums.Get(i).FullName(), value.Number(), value.Name())] = true
		}
		ranges := enums.Get(i).ReservedRanges()
		for j := range ranges.Len() {
			for n := ranges.Get(j)[0]; n <= ranges.Get(j)[1] && n < ranges.Get(j)[0]+1000; n++ {
				lines[fmt.Sprintf("reserved %s %d", enums.Get(i).FullName(), n)] = true
			}
		}
	}
}
