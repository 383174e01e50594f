package clientconfig_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"daybreak/cmd/clientconfig"
)

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := clientconfig.Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load a file that is not there: %v", err)
	}
	config := &clientconfig.Config{}
	config.Set(clientconfig.Context{Name: "default", Server: "a:1", CA: "ca\n", Cert: "cert", Key: "key"})
	config.Set(clientconfig.Context{Name: "other", Server: "unix:///b"})
	config.Set(clientconfig.Context{Name: "default", Server: "a:2", CA: "ca\n", Cert: "cert", Key: "key"})
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := clientconfig.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	current, err := got.Pick("")
	if err != nil || current.Server != "a:2" {
		t.Errorf("current: %+v, %v", current, err)
	}
	if _, err := got.Pick("third"); !errors.Is(err, clientconfig.ErrNoContext) || !strings.Contains(err.Error(), "default, other") {
		t.Errorf("pick a context that is not there: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := clientconfig.Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("load a file that others can read: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"contexts: [{name: a, server: b, tokn: c}]":              "tokn",
		"contexts: [{name: a, server: b}, {name: a, server: b}]": "stands twice",
		"contexts: [{name: a}]":                                  "contexts[0]",
		"a: &a [x, x]\nb: &b [*a, *a]\ncontexts: [{name: [*b]}]": "",
	} {
		_, err := clientconfig.Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("current-context: a\ncontexts:\n- name: a\n  server: b:1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := clientconfig.Parse(text)
		if err != nil {
			return
		}
		for _, context := range config.Contexts {
			if context.Name == "" {
				t.Error("a context without a name")
			}
		}
	})
}
