package etcdstore

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// killDir tells this test binary that it is the process to be killed.
const killDir = "DAYBREAK_TEST_KILL_DIR"

// TestKilled commits as fast as it can in another process, kills that with SIGKILL, and looks whether everything that
// was acknowledged is there, whole.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		commitUntilKilled(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 3 {
		n := killRound(t, dir, round, acknowledged)
		t.Logf("killed after %d transactions were acknowledged", n)
	}
	b := New(start(t, EmbedConfig{Dir: dir}).Client, "/daybreak", zerolog.Nop())
	objects, _, err := b.List(t.Context(), v1.Kind_KIND_ZONE)
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[string]int64{}
	for _, o := range objects {
		revisions[o.GetMeta().GetName()] = o.GetMeta().GetRevision()
	}
	for name := range acknowledged {
		if revisions[name+"-1"] == 0 {
			t.Errorf("transaction %s was acknowledged and is gone", name)
		}
	}
	for name, revision := range revisions {
		pair := name[:len(name)-len("-1")]
		if revisions[pair+"-1"] != revision || revisions[pair+"-2"] != revision {
			t.Errorf("transaction %s is there in part", pair)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged before the kill")
	}
}

// killRound runs the other process until it has acknowledged enough.
func killRound(t *testing.T, dir string, round int, acknowledged map[string]bool) int {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
	child.Env = append(os.Environ(), killDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	n, other := 0, ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
		if !ok {
			other += lines.Text() + "\n"
			continue
		}
		acknowledged[name] = true
		if n++; n == 40+30*round {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	err = child.Wait()
	if child.ProcessState.ExitCode() != -1 {
		t.Fatalf("the process ended before it was killed: %v\n%s", err, other)
	}
	return n
}

func commitUntilKilled(t *testing.T, dir string) {
	s, err := Embedded(t.Context(), EmbedConfig{Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b := New(s.Client, "/daybreak", zerolog.Nop())
	var group errgroup.Group
	for writer := range 4 {
		group.Go(func() error {
			for n := 0; ; n++ {
				name := fmt.Sprintf("z%d-%d-%d", os.Getpid(), writer, n)
				_, err := b.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(newZone(name + "-1")), store.Create(newZone(name + "-2"))})
				if err != nil {
					return err
				}
				if _, err := fmt.Printf("acknowledged %s\n", name); err != nil {
					return err
				}
			}
		})
	}
	t.Fatal(group.Wait())
}
