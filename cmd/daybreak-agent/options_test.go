package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func parse(t *testing.T, args ...string) (options, error) {
	t.Helper()
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return load(flags)
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name, wrong string
		args        []string
	}{
		{"enough", "", []string{"--server", "cp:7444", "--name", "kvm1"}},
		{"zones", "", []string{"--server", "cp:7444", "--name", "kvm1", "--zone", "office=br-office", "--zone", "lgwan=br1"}},
		{"no server", "--server is needed", []string{"--name", "kvm1"}},
		{"server without port", "want host:port", []string{"--server", "cp", "--name", "kvm1"}},
		{"name with capitals", "want a DNS label", []string{"--server", "cp:7444", "--name", "KVM1"}},
		{"name with a path", "want a DNS label", []string{"--server", "cp:7444", "--name", "../kvm"}},
		{"zone without bridge", "want ZONE=BRIDGE", []string{"--server", "cp:7444", "--name", "kvm1", "--zone", "office"}},
		{"bridge too long", "want ZONE=BRIDGE", []string{"--server", "cp:7444", "--name", "kvm1", "--zone", "office=abcdefghijklmnop"}},
		{"zone twice", "twice", []string{"--server", "cp:7444", "--name", "kvm1", "--zone", "a=b", "--zone", "a=c"}},
		{"two tokens", "give one of them", []string{"--server", "cp:7444", "--name", "kvm1", "--token", "x", "--token-file", "y"}},
		{"relative directory", "absolute path", []string{"--server", "cp:7444", "--name", "kvm1", "--data-dir", "x"}},
		{"boots below zero", "want 0 to 4096", []string{"--server", "cp:7444", "--name", "kvm1", "--max-boots", "-1"}},
		{"too many builds", "want 0 to 64", []string{"--server", "cp:7444", "--name", "kvm1", "--max-builds", "65"}},
		{"peers", "", []string{"--server", "cp:7444", "--name", "kvm1", "--peer-listen", "10.0.0.1:7447", "--peer-bandwidth", "20MiB"}},
		{"peers by another name", "", []string{"--server", "cp:7444", "--name", "kvm1", "--peer-listen", ":7447", "--peer-address", "kvm1.example.jp:7447"}},
		{"peers on every address", "--peer-address", []string{"--server", "cp:7444", "--name", "kvm1", "--peer-listen", ":7447"}},
		{"peer address alone", "for --peer-listen", []string{"--server", "cp:7444", "--name", "kvm1", "--peer-address", "kvm1:7447"}},
		{"peer address without port", "want host:port", []string{"--server", "cp:7444", "--name", "kvm1", "--peer-listen", ":7447", "--peer-address", "kvm1"}},
		{"bandwidth", "want bytes a second", []string{"--server", "cp:7444", "--name", "kvm1", "--fetch-bandwidth", "fast"}},
		{"log level", "--log-level", []string{"--server", "cp:7444", "--name", "kvm1", "--log-level", "loud"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parse(t, c.args...)
			switch {
			case c.wrong == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.wrong == "" && len(o.zones) != len(o.Zone):
				t.Errorf("zones %v from %v", o.zones, o.Zone)
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("error %v, want one with %q", err, c.wrong)
			}
		})
	}
}

func TestOptionsFromFileAndEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("server: [cp.example.jp:7444]\nname: kvm1\nzone: [office=br-office]\nmax-boots: 3\n")
	t.Setenv("DAYBREAK_AGENT_NAME", "kvm2")
	o, err := parse(t, "--config", file, "--max-boots", "5")
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "kvm2" || o.MaxBoots != 5 || o.Server[0] != "cp.example.jp:7444" || o.zones["office"] != "br-office" {
		t.Errorf("got %+v: a flag wins over the environment, the environment over the file", o)
	}
	write("sever: [cp:7444]\n")
	if _, err := parse(t, "--config", file); err == nil || !strings.Contains(err.Error(), "sever") {
		t.Errorf("a misspelt key: %v", err)
	}
}
