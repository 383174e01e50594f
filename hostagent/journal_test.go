package hostagent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

const someUID = "0b5c8a3e-7b1f-4a53-9d3e-2f6f0c7d1a11"

func openTestJournal(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(path, JournalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func testAssignment(uid string, generation int64, desired v1.DesiredState) *v1.Assignment {
	return &v1.Assignment{
		Desktop: "office-1", Uid: uid,
		Spec: &v1.DesktopSpec{Pool: "office", Zone: "office", Mac: "52:54:00:12:34:56", VmUuid: someUID},
		Incarnation: &v1.Incarnation{
			Generation: generation, Digest: strings.Repeat("ab", 32), Desired: desired, Shape: &v1.Shape{}, Reason: "日本語の理由",
		},
	}
}

func fill(t testing.TB, j *Journal) record {
	t.Helper()
	life := Life{Desktop: "office-1", UID: someUID, Generation: 7}
	rec := record{
		life: life, assignment: testAssignment(someUID, 7, wantReady), start: startMark{phase: startConfirmed, bootID: "boot"}, noticed: "n1",
		status: &v1.DesktopStatus{Generation: 7, State: ready, Times: []*v1.StateTime{{State: ready, At: timestamppb.New(noon)}}},
	}
	err := j.write(func(tx journalTx) error {
		return errors.Join(tx.putEpoch(3), tx.putHighest(someUID, 9), tx.putAssignment(keyOf(life), rec.assignment),
			tx.putStatus(life, rec.status), tx.putStart(keyOf(life), rec.start), tx.putNotice(keyOf(life), rec.noticed))
	})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestJournalRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "journal.db")
	j := openTestJournal(t, path)
	if !j.Empty() {
		t.Error("a new journal is not empty")
	}
	want := fill(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTestJournal(t, path)
	if j.Empty() {
		t.Error("empty, although it holds a desktop")
	}
	m, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	got := m.lives[keyOf(want.life)]
	if m.epoch != 3 || m.highest[someUID] != 9 || got == nil || got.life != want.life || got.start != want.start || got.noticed != want.noticed {
		t.Fatalf("read %+v, %+v", m, got)
	}
	if diff := cmp.Diff(want.assignment, got.assignment, protocmp.Transform()) + cmp.Diff(want.status, got.status, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if err := j.write(func(tx journalTx) error { return tx.forget(keyOf(want.life)) }); err != nil {
		t.Fatal(err)
	}
	if m, err = j.load(); err != nil || len(m.lives) != 0 || m.highest[someUID] != 9 {
		t.Errorf("after forgetting a life: %+v, %v; the generation must stay", m, err)
	}
}

// What another version of the agent wrote may break a rule of this one's: that costs the one life its assignment, or its
// status some words, and no other life anything.
func TestJournalOfOtherRules(t *testing.T) {
	j := openTestJournal(t, filepath.Join(t.TempDir(), "journal.db"))
	want := fill(t, j)
	ruleless, wordy := keyOf(want.life), Life{Desktop: "office-2", UID: "1b5c8a3e-7b1f-4a53-9d3e-2f6f0c7d1a12", Generation: 8}
	err := j.write(func(tx journalTx) error {
		bad := proto.CloneOf(want.assignment)
		bad.Spec.Mac = "no address"
		return errors.Join(tx.putAssignment(ruleless, bad), tx.putHighest(wordy.UID, 8),
			tx.putAssignment(keyOf(wordy), testAssignment(wordy.UID, 8, wantReady)),
			tx.putStatus(wordy, &v1.DesktopStatus{Generation: 8, State: failed, Message: strings.Repeat("x", 5000)}))
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBook(j, noon)
	if err != nil {
		t.Fatal(err)
	}
	if e := b.entries[ruleless]; e.assignment != nil || e.status.GetState() != ready || e.start != want.start || b.highest[someUID] != 9 {
		t.Errorf("read %+v, want an orphan that is as it was", e)
	}
	if e := b.entries[keyOf(wordy)]; e.assignment == nil || !proto.Equal(e.status, &v1.DesktopStatus{Generation: 8, State: failed}) {
		t.Errorf("read %+v, want its assignment and its state", e)
	}
	if len(b.unruly) != 2 {
		t.Errorf("%d complaints, want 2: %v", len(b.unruly), b.unruly)
	}
}

func TestJournalIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	openTestJournal(t, path)
	if _, err := OpenJournal(path, JournalOptions{}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second agent: %v", err)
	}
}

// A journal that is not as it was written is either read as it was, or refused as a whole: never read as something else,
// and never a crash.
func TestJournalDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.db")
	j := openTestJournal(t, path)
	want := fill(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	damages := map[string]func([]byte) []byte{
		"no bolt file": func([]byte) []byte { return []byte(strings.Repeat("hello ", 5000)) },
		"cut in half":  func(b []byte) []byte { return b[:len(b)/2] },
		"cut to a page": func(b []byte) []byte {
			return b[:4096]
		},
		"zeroed": func(b []byte) []byte { return make([]byte, len(b)) },
	}
	for range 60 {
		// Not the two pages of meta data: a damaged newer one costs the last write, as a power loss just before it would.
		at := 2*4096 + random.IntN(len(good)-2*4096)
		damages[fmt.Sprintf("byte %d", at)] = func(b []byte) []byte {
			b[at] ^= 0xff
			return b
		}
	}
	refused := 0
	for name, damage := range damages {
		file := filepath.Join(dir, "damaged.db")
		if err := os.WriteFile(file, damage(append([]byte(nil), good...)), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(file, JournalOptions{NoSync: true})
		if err != nil {
			t.Errorf("%s: open: %v, want a journal that knows its damage", name, err)
			continue
		}
		m, err := j.load()
		switch {
		case errors.Is(err, ErrJournalDamaged):
			refused++
			if werr := j.write(func(journalTx) error { return nil }); !errors.Is(werr, ErrJournalDamaged) && j.damage != nil {
				t.Errorf("%s: write to a damaged journal: %v", name, werr)
			}
		case err != nil:
			t.Errorf("%s: load: %v", name, err)
		case m.lives[keyOf(want.life)] == nil || !proto.Equal(m.lives[keyOf(want.life)].status, want.status) || m.highest[someUID] != 9 || m.epoch != 3:
			t.Errorf("%s: read as %+v", name, m)
		}
		_ = j.Close()
	}
	if refused < 4 {
		t.Errorf("only %d of %d damages were seen", refused, len(damages))
	}
}

func FuzzJournalValues(f *testing.F) {
	status, _ := proto.Marshal(&v1.IncarnationReport{Desktop: "d", Uid: someUID, Status: &v1.DesktopStatus{Generation: 7, State: ready}})
	assignment, _ := proto.Marshal(testAssignment(someUID, 7, wantReady))
	key := encodeKey(lifeKey{uid: someUID, generation: 7})
	f.Add(key, status, byte(0))
	f.Add(key, assignment, byte(1))
	f.Add(key, append([]byte{2}, "boot"...), byte(2))
	f.Add([]byte(someUID), []byte{0, 0, 0, 0, 0, 0, 0, 7}, byte(3))
	f.Fuzz(func(t *testing.T, key, payload []byte, bucket byte) {
		m := memory{highest: map[string]int64{}, lives: map[lifeKey]*record{}}
		if bucket%4 == 1 || bucket%4 == 2 {
			m.lives[lifeKey{uid: someUID, generation: 7}] = &record{}
		}
		take := []func(*memory, []byte, []byte) error{(*memory).takeStatus, (*memory).takeAssignment, (*memory).takeStart, (*memory).takeHighest}[bucket%4]
		if err := take(&m, key, payload); err == nil && len(payload) < 4 {
			t.Error("a value without a checksum was taken")
		}
		if err := take(&m, key, seal(payload)); err != nil {
			return
		}
		for key, rec := range m.lives {
			if key.generation <= 0 || rec.status != nil && rec.status.GetGeneration() != key.generation {
				t.Errorf("took in %+v as %+v", rec, key)
			}
		}
		for uid, generation := range m.highest {
			if len(uid) != 36 || generation <= 0 {
				t.Errorf("took in generation %d of %q", generation, uid)
			}
		}
	})
}

func FuzzCleanText(f *testing.F) {
	f.Add("ok", 10)
	f.Add("a\x00b\x1b[31m\u202e\xff世界", 8)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 4 + limit&0xff
		clean := cleanText(text, limit)
		if len(clean) > limit || !proto.Equal(&v1.DesktopStatus{Message: clean}, &v1.DesktopStatus{Message: strings.ToValidUTF8(clean, "?")}) {
			t.Errorf("%q of %d became %q", text, limit, clean)
		}
		if strings.ContainsAny(clean, "\x00\x1b\n\r\x7f\u2028\u202e") {
			t.Errorf("%q still has control characters", clean)
		}
	})
}
