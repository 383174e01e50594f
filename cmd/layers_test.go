// Package cmd_test holds the floor plan and checks that the house still stands on it. Nothing else lives here.
package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// arrows says which rooms a room may import. Within a room everything may be imported, but see apart.
var arrows = map[string][]string{
	"proto":        {},
	"images":       {"proto"},
	"hostagent":    {"proto", "images"},
	"orchestrator": {"proto", "images"},
	"api":          {"proto", "images", "orchestrator"},
	"cmd":          {"proto", "images", "hostagent", "orchestrator", "api"},
	"deploy":       {"proto", "images", "hostagent", "orchestrator", "api", "cmd"},
}

// apart are the orchestrator's rooms that meet only in the store.
var apart = []string{"pool", "warmup", "placement", "catalog", "rollout", "dispatch", "room", "demand"}

// mayCall are the exceptions: pure rooms that another may ask.
var mayCall = map[string][]string{"pool": {"warmup", "demand", "room"}, "placement": {"room"}, "warmup": {"demand", "room"}}

// banned are names that say nothing of what lives there.
var banned = []string{"util", "utils", "common", "helpers", "internal", "pkg", "misc", "shared"}

// topLevel is all that may stand at the top; dot-files are free.
var topLevel = []string{"cmd", "api", "orchestrator", "hostagent", "images", "proto", "deploy", "go.mod", "go.sum", "README.md", "bin"}

type source struct {
	path string // from the root, with slashes
	dir  string
	file *ast.File
	line int
	test bool
}

func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." || entry.Name() == "testdata" || rel == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found = append(found, source{
			path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), file: file,
			line: strings.Count(string(text), "\n"), test: strings.HasSuffix(rel, "_test.go"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no Go files found: the test stands in the wrong place")
	}
	return found
}

func room(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func contains(list []string, want string) bool {
	for _, have := range list {
		if have == want {
			return true
		}
	}
	return false
}

func TestArrows(t *testing.T) {
	for _, src := range sources(t) {
		from := room(src.path)
		allowed, known := arrows[from]
		if !known {
			t.Errorf("%s: no such room in the floor plan", src.path)
			continue
		}
		for _, imp := range src.file.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			target, ours := strings.CutPrefix(path, "daybreak/")
			if !ours {
				checkForeign(t, src, path)
				continue
			}
			if to := room(target); to != from && !contains(allowed, to) {
				t.Errorf("%s imports %s: %s may import only %v", src.path, path, from, allowed)
			}
			checkApart(t, src, target)
		}
	}
}

// checkForeign keeps libvirt and QEMU in their one room, and configuration at the doors.
func checkForeign(t *testing.T, src source, path string) {
	t.Helper()
	hypervisor := strings.HasPrefix(path, "libvirt.org/go/") || strings.HasPrefix(path, "github.com/digitalocean/go-qemu")
	if hypervisor && src.dir != "hostagent/libvirt" {
		t.Errorf("%s imports %s: only hostagent/libvirt may", src.path, path)
	}
	if path == "github.com/spf13/viper" && room(src.path) != "cmd" {
		t.Errorf("%s imports %s: only cmd reads configuration", src.path, path)
	}
}

func checkApart(t *testing.T, src source, target string) {
	t.Helper()
	from, inside := strings.CutPrefix(src.dir, "orchestrator/")
	to, also := strings.CutPrefix(target, "orchestrator/")
	if !inside || !also || src.test {
		return
	}
	from, to = room(from), room(to)
	if from != to && contains(apart, from) && contains(apart, to) && !contains(mayCall[from], to) {
		t.Errorf("%s imports %s: %s and %s meet only in the store", src.path, target, from, to)
	}
}

func TestFileLength(t *testing.T) {
	for _, src := range sources(t) {
		if !strings.HasSuffix(src.path, ".pb.go") && src.line > 400 {
			t.Errorf("%s has %d lines: which room do they want to become? (at most 400)", src.path, src.line)
		}
	}
}

func TestFunctionLength(t *testing.T) {
	for _, src := range sources(t) {
		if src.test || strings.HasSuffix(src.path, ".pb.go") {
			continue
		}
		for _, decl := range src.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				if n := lines(src, fn); n > 60 {
					t.Errorf("%s: %s has %d lines (at most 60)", src.path, fn.Name.Name, n)
				}
			}
		}
	}
}

// lines counts the line breaks of a function by its text.
func lines(src source, fn *ast.FuncDecl) int {
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(src.path)))
	if err != nil {
		return 0
	}
	base := src.file.FileStart
	return strings.Count(string(text[fn.Pos()-base:fn.End()-base]), "\n") + 1
}

func TestPackageComments(t *testing.T) {
	signs := map[string]int{}
	for _, src := range sources(t) {
		if src.test && src.dir != "cmd" {
			if _, ok := signs[src.dir]; !ok && strings.HasSuffix(src.file.Name.Name, "_test") {
				continue
			}
			continue
		}
		if src.file.Doc != nil && !strings.HasSuffix(src.path, ".pb.go") {
			signs[src.dir]++
		} else if _, ok := signs[src.dir]; !ok {
			signs[src.dir] = 0
		}
	}
	for dir, n := range signs {
		if n != 1 {
			t.Errorf("%s has %d package comments: want exactly one that says what lives there, what does not, who may call it", dir, n)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, src := range sources(t) {
		for _, part := range strings.Split(src.dir, "/") {
			if contains(banned, part) {
				t.Errorf("%s: a folder named %q says nothing of what lives there", src.path, part)
			}
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasPrefix(name, ".") && !contains(topLevel, name) {
			t.Errorf("%s stands at the top level: it has no place there", name)
		}
	}
}
