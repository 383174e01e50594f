package audit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"daybreak/api/audit"
)

func lines(t *testing.T, path string) []audit.Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []audit.Record
	for line := range bytes.Lines(text) {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		records = append(records, r)
	}
	return records
}

// TestRotation: the file may be moved away at any time; what follows goes to a new one, and nothing is lost.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Write(audit.Record{Who: "one"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := log.Write(audit.Record{Who: "two"}); err != nil {
		t.Fatal(err)
	}
	if old, now := lines(t, path+".1"), lines(t, path); len(old) != 1 || old[0].Who != "one" || len(now) != 1 || now[0].Who != "two" {
		t.Errorf("%v then %v", old, now)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestOneLineARecord: many write at once, and texts cannot make lines of their own.
func TestOneLineARecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	text := "a\n{\"phase\":\"result\"}\r\x1b[2J\u202e" + strings.Repeat("総務課", 100)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := log.Write(audit.Record{Object: text}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	records := lines(t, path)
	if len(records) != 20 {
		t.Errorf("%d lines", len(records))
	}
	for _, r := range records {
		if r.Object != text || r.Phase != "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestOpenFailsEarly(t *testing.T) {
	if _, err := audit.Open(filepath.Join(t.TempDir(), "none", "audit.log")); err == nil {
		t.Error("opened where no file can be")
	}
}
