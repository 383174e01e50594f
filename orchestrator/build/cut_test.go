package build

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/images"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// cut is where a build is broken off: after so many messages of one side, or of daybreakd's own.
type cut struct {
	side  string
	after int
}

// Wherever a patch is broken off, by whomever: a version that is ready was checked, every version there is is whole, a
// version whose admin ended the patch cannot be run, and nothing of the build is left.
func TestNoHalfVersion(t *testing.T) {
	inHouse(t, func(h *house) {
		for number, side := range []string{"nobody", "admin", "agent", "host lost", "daybreakd"} {
			for after := range 9 {
				outcome := well()
				if after%3 == 1 {
					outcome = &v1.BuildOutcome{Error: "no answer"}
				}
				before := len(h.versions())
				err := h.broken(cut{side, after}, string([]byte{'b', byte(number), byte(after), 'b'}), outcome)
				h.whole()
				versions := h.versions()[before:]
				t.Logf("%s after %d, %q: %v, %v", side, after, outcome.GetError(), versions, err)
				switch {
				case len(versions) > 1:
					t.Errorf("%d versions of one patch", len(versions))
				case len(versions) == 1 && versions[0] == "READY" && outcome.GetError() != "":
					t.Error("ready, though the check failed")
				case err == nil && (len(versions) != 1 || versions[0] != "READY"):
					t.Errorf("done, and the version is %v", versions)
				case errors.Is(err, context.Canceled) && len(versions) == 1 && versions[0] == "DRAFT":
					t.Error("the admin ended the patch and a draft is left")
				}
			}
		}
	})
}

// broken does a patch that is broken off, and returns how it ended for the admin: context.Canceled when the admin did that.
func (h *house) broken(c cut, fill string, outcome *v1.BuildOutcome) error {
	defer synctest.Wait()
	h.closing = make(chan struct{})
	h.relay.deps.Closing = h.closing
	said := 0
	tick := func(a *agent) bool { // between two messages of the agent
		if said++; said <= c.after {
			return true
		}
		switch c.side {
		case "daybreakd":
			select {
			case <-h.closing:
			default:
				close(h.closing)
			}
			time.Sleep(time.Millisecond)
		case "agent":
			a.end()
			return false
		case "host lost":
			a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Outcome{Outcome: &v1.BuildOutcome{Error: "the VM died"}}})
			return false
		}
		return true
	}
	manifest := manifestOf(h.t, fill).Encoded()
	h.script = func(a *agent) {
		words := []*v1.BuildUpdate{
			{Say: &v1.BuildUpdate_Progress{Progress: &v1.BuildProgress{Text: "booting"}}},
			{Say: &v1.BuildUpdate_Output{Output: []byte("output")}},
			{Say: &v1.BuildUpdate_Manifest{Manifest: manifest[:10]}},
			{Say: &v1.BuildUpdate_Manifest{Manifest: manifest[10:]}},
			{Say: &v1.BuildUpdate_Outcome{Outcome: &v1.BuildOutcome{}}},
		}
		if a.check() {
			words = []*v1.BuildUpdate{words[0], {Say: &v1.BuildUpdate_Outcome{Outcome: outcome}}}
		} else {
			h.disk(fill)
		}
		for _, word := range words {
			if !tick(a) || !a.say(word) {
				return
			}
		}
		a.hear()
	}
	b := h.build(patch())
	defer b.end()
	for heard := 0; ; heard++ {
		if c.side == "admin" && heard == c.after {
			b.end()
			return context.Canceled
		}
		if _, err := b.stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// whole checks that every version that the image has can be fetched to the last chunk, and that no build is left.
func (h *house) whole() {
	image, err := store.Get[*v1.Image](h.ctx, h.objects, "office")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, v := range image.GetStatus().GetVersions() {
		digest, err := images.ParseDigest(v.GetDigest())
		if err != nil {
			h.t.Fatal(err)
		}
		manifest, err := h.chunks.GetManifest(h.ctx, digest)
		if err != nil {
			h.t.Fatal(err)
		}
		missing := 0
		for chunk := range manifest.Chunks() {
			if _, err := h.chunks.Get(h.ctx, chunk); err != nil {
				missing++
			}
		}
		if missing > 0 || len(v.GetSignatures()) == 0 {
			h.t.Fatalf("version %d lacks %d chunks, or a signature", v.GetNumber(), missing)
		}
		if v.GetState() == v1.VersionState_VERSION_STATE_READY && v.GetNumber() > 1 && v.GetCheck() != well().GetCheck() {
			h.t.Fatalf("version %d is ready and was not checked: %q", v.GetNumber(), v.GetCheck())
		}
	}
	h.relay.mu.Lock()
	defer h.relay.mu.Unlock()
	if left := len(h.relay.jobs) + len(h.relay.legs); left > 0 {
		h.t.Errorf("%d of the build is left", left)
	}
}
