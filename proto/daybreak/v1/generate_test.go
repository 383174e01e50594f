package daybreakv1_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/pluginpb"
)

var update = flag.Bool("update", false, "write the generated Go files instead of comparing them")

// TestGenerated compiles the .proto files, runs the two Go generators that go.mod pins, and compares what they make
// with what is committed. With -update it writes the files: that is the one way to generate them.
func TestGenerated(t *testing.T) {
	request := compile(t)
	made := map[string]string{}
	for _, plugin := range []struct{ tool, param string }{
		{"protoc-gen-go", "paths=source_relative"},
		{"protoc-gen-go-grpc", "paths=source_relative,require_unimplemented_servers=true"},
	} {
		for name, content := range runPlugin(t, plugin.tool, plugin.param, request) {
			made[filepath.Base(name)] = content
		}
	}
	committed, err := filepath.Glob("*.pb.go")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for _, name := range committed {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		for name, content := range made {
			if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	for name, content := range made {
		have, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(have, []byte(content)) {
			t.Errorf("%s is stale (%v): run go test ./proto/daybreak/v1 -run TestGenerated -update", name, err)
		}
	}
	for _, name := range committed {
		if _, ok := made[name]; !ok {
			t.Errorf("%s is made from no .proto file: delete it", name)
		}
	}
}

// compile returns the descriptors of our files, dependencies first, as a generator wants them.
func compile(t *testing.T) *pluginpb.CodeGeneratorRequest {
	t.Helper()
	names, err := filepath.Glob("*.proto")
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	for i, name := range names {
		names[i] = "daybreak/v1/" + name
	}
	root := filepath.Join("..", "..")
	compiler := protocompile.Compiler{
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{root}},
			// validate.proto and Google's own come from the Go modules that are linked in anyway.
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				file, err := protoregistry.GlobalFiles.FindFileByPath(path)
				if err != nil {
					return protocompile.SearchResult{}, err
				}
				return protocompile.SearchResult{Proto: protodesc.ToFileDescriptorProto(file)}, nil
			}),
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		t.Fatalf("compile the .proto files: %v", err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(file))
	}
	for _, file := range files {
		add(file)
	}
	return request
}

// runPlugin runs one generator and returns its files by name.
func runPlugin(t *testing.T, tool, param string, request *pluginpb.CodeGeneratorRequest) map[string]string {
	t.Helper()
	req := proto.CloneOf(request)
	req.Parameter = &param
	in, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "tool", tool)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s: %v: %s", tool, err, stderr.String())
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		t.Fatal(err)
	}
	if response.Error != nil {
		t.Fatalf("%s: %s", tool, *response.Error)
	}
	files := map[string]string{}
	for _, file := range response.File {
		files[file.GetName()] = file.GetContent()
	}
	return files
}

// TestEverythingIsExplained keeps the promise that each message, field, enum, service and call says what it means.
func TestEverythingIsExplained(t *testing.T) {
	for _, file := range compile(t).ProtoFile {
		if !strings.HasPrefix(file.GetName(), "daybreak/") {
			continue
		}
		explained := map[string]bool{}
		for _, loc := range file.GetSourceCodeInfo().GetLocation() {
			explained[fmt.Sprint(loc.Path)] = strings.TrimSpace(loc.GetLeadingComments()) != ""
		}
		want := func(what string, path ...int32) {
			if !explained[fmt.Sprint(path)] {
				t.Errorf("%s: %s has no comment", file.GetName(), what)
			}
		}
		// The numbers are those of FileDescriptorProto's fields: 4 messages, 5 enums, 6 services; in each, 2 its parts.
		for i, message := range file.MessageType {
			want(message.GetName(), 4, int32(i))
			for j, field := range message.Field {
				want(message.GetName()+"."+field.GetName(), 4, int32(i), 2, int32(j))
			}
		}
		for i, enum := range file.EnumType {
			want(enum.GetName(), 5, int32(i))
		}
		for i, service := range file.Service {
			want(service.GetName(), 6, int32(i))
			for j, method := range service.Method {
				want(service.GetName()+"."+method.GetName(), 6, int32(i), 2, int32(j))
			}
		}
	}
}
