package build

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"

	"daybreak/images"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// chunk reads a chunk out of the store.
func (h *house) chunk(digest string) string {
	h.t.Helper()
	d, err := images.ParseDigest(digest)
	if err != nil {
		h.t.Fatal(err)
	}
	sealed, err := h.chunks.Get(h.t.Context(), d)
	if err != nil {
		h.t.Fatal(err)
	}
	plain, err := h.codec.Open(nil, images.Chunk{Digest: d, Sealed: sealed})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(plain)
}

func TestPatch(t *testing.T) {
	inHouse(t, func(h *house) {
		var got strings.Builder
		makes := patches("aaba", well)
		h.script = func(a *agent) {
			for want := 10; want > 0 && !a.check(); {
				piece := a.hear().GetFilePiece()
				got.Write(piece)
				want -= len(piece)
			}
			if v := a.assignment; v.GetOrder().GetVersion() == 0 || len(v.GetDigest()) != 64 || len(v.GetSignatures()) != 1 {
				t.Errorf("nothing that a host could trust: %v", v)
			}
			makes(a)
		}
		b := h.build(patch(func(o *v1.BuildOrder) {
			o.Files = []*v1.BuildFile{{Path: "/tmp/a", Size: 4}, {Path: `C:\b`, Size: 6}}
		}))
		for _, piece := range []string{"abcd", "ef", "ghij"} {
			b.say(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: []byte(piece)}})
		}
		end := b.rest()
		if !errors.Is(end.err, io.EOF) {
			t.Fatal(end.err)
		}
		if got.String() != "abcdefghij" || end.output.String() != "installing\n" {
			t.Errorf("files %q, output %q", &got, &end.output)
		}
		v := end.result.GetVersion()
		if v.GetNumber() != 2 || v.GetState() != v1.VersionState_VERSION_STATE_READY || v.GetParent() != 1 || v.GetNote() != "hello" ||
			v.GetBy() != "taro" || v.GetCheck() != "office, in 12 s" || end.result.GetSentBytes() != 7 || end.result.GetReadBytes() != 9 {
			t.Errorf("result %v", end.result)
		}
		if log, list := h.chunk(v.GetLog()), h.chunk(v.GetPackages()); log != "installing\n" || list != "bash 5.2\nhello 2.10\n" {
			t.Errorf("log %q, packages %q", log, list)
		}
		if r := h.reasons(); r != "PatchStarted VersionCreated VersionReady" {
			t.Errorf("events %s", r)
		}
		if fmt.Sprint(h.called) != "[kvm1 kvm1]" {
			t.Errorf("called %v, want the host that has the version, twice", h.called)
		}
	})
}

func TestPatchThatChangesNothing(t *testing.T) {
	inHouse(t, func(h *house) {
		h.script = patches("aaaa", well)
		end := h.build(patch()).rest()
		if !end.result.GetUnchanged() || end.result.GetVersion().GetNumber() != 1 || fmt.Sprint(h.versions()) != "[READY]" {
			t.Errorf("%v, versions %v, %v", end.result, h.versions(), end.err)
		}
		if r := h.reasons(); r != "PatchStarted PatchUnchanged" {
			t.Errorf("events %s", r)
		}
	})
}

// What an agent says or does wrong ends the build with a reason, and leaves no version that could be run.
func TestPatchThatFails(t *testing.T) {
	big := strings.Repeat("x", 60000)
	for name, c := range map[string]struct {
		script   func(*agent)
		words    string
		versions string
		events   string
	}{
		"the script fails":   {func(a *agent) { a.done(&v1.BuildOutcome{Error: "exit status 3\x1b[2J"}) }, "kvm1: exit status 3[2J", "[READY]", "PatchFailed PatchStarted"},
		"the agent hangs up": {func(a *agent) { a.output("half") }, "host kvm1: its agent hung up", "[READY]", "PatchFailed PatchStarted"},
		"no manifest":        {func(a *agent) { a.done(&v1.BuildOutcome{}) }, "manifest that is none", "[READY]", "PatchFailed PatchStarted"},
		"a manifest of chunks that are not there": {func(a *agent) {
			a.sendManifest(manifestOf(a.h.t, "azaa"))
			a.done(&v1.BuildOutcome{})
		}, "chunks are missing", "[READY]", "PatchFailed PatchStarted"},
		"a manifest of another disk": {func(a *agent) {
			a.h.disk("aab")
			a.sendManifest(manifestOf(a.h.t, "aab"))
			a.done(&v1.BuildOutcome{})
		}, "manifest of a disk of 786432 bytes, version 1 has 1048576", "[READY]", "PatchFailed PatchStarted"},
		"an endless manifest": {func(a *agent) {
			for a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Manifest{Manifest: []byte(big)}}) {
			}
		}, "manifest that is none of this disk", "[READY]", "PatchFailed PatchStarted"},
		"endless output": {func(a *agent) {
			for a.output(big) {
			}
		}, "said more than 4 MiB", "[READY]", "PatchFailed PatchStarted"},
		"a screen that nobody asked for": {func(a *agent) {
			a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Screen{Screen: []byte("RFB")}})
			a.hear()
		}, "a screen that nobody asked for", "[READY]", "PatchFailed PatchStarted"},
		"a second id": {func(a *agent) {
			a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: "again"}})
			a.hear()
		}, "no place in a build", "[READY]", "PatchFailed PatchStarted"},
		"a message that breaks the rules": {func(a *agent) {
			a.output(big + big)
			a.hear()
		}, "broke the rules", "[READY]", "PatchFailed PatchStarted"},
		"the check fails": {patches("aaba", func() *v1.BuildOutcome { return &v1.BuildOutcome{Error: "the guest agent did not answer"} }),
			"version 2 of image office failed its check on host kvm1 and is withdrawn: the guest agent did not answer", "[READY WITHDRAWN]",
			"PatchFailed PatchStarted VersionCreated VersionWithdrawn"},
		"the check does not end": {func(a *agent) {
			if !a.check() {
				patches("aaba", nil)(a)
			}
		}, "version 2 of image office is made and was not checked; check it with 'daybreak image check office 2'", "[READY DRAFT]",
			"PatchFailed PatchStarted VersionCreated"},
		"the check sends a manifest": {func(a *agent) {
			if a.check() {
				a.sendManifest(manifestOf(a.h.t, "aaaa"))
				a.hear()
				return
			}
			patches("aaba", nil)(a)
		}, "not checked", "[READY DRAFT]", "PatchFailed PatchStarted VersionCreated"},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				h.script = c.script
				end := h.build(patch()).rest()
				if text := status.Convert(end.err).Message(); !strings.Contains(text, c.words) || end.result != nil {
					t.Errorf("ended with %q %v, want %q", text, end.result, c.words)
				}
				if v := fmt.Sprint(h.versions()); v != c.versions {
					t.Errorf("versions %s, want %s", v, c.versions)
				}
				if r := h.reasons(); r != c.events {
					t.Errorf("events %s, want %s", r, c.events)
				}
			})
		})
	}
}

func TestHostsThatDoNotCome(t *testing.T) {
	inHouse(t, func(h *house) {
		began := time.Now()
		end := h.build(patch()).rest()
		if text := status.Convert(end.err).Message(); !strings.Contains(text, "agreed to the build and did not come") || time.Since(began) > arrivalLimit {
			t.Errorf("%q after %v", text, time.Since(began))
		}
		full := errors.New("the host has no room")
		h.refuse = func(string) error { return full }
		end = h.build(patch()).rest()
		if text := status.Convert(end.err).Message(); !strings.Contains(text, "no room") || fmt.Sprint(h.called) != "[kvm1 kvm1 kvm2]" {
			t.Errorf("%q after %v were called", text, h.called)
		}
		h.called = nil
		end = h.build(patch(func(o *v1.BuildOrder) { o.Host = "kvm1" })).rest()
		if text := status.Convert(end.err).Message(); !strings.Contains(text, "no room") || fmt.Sprint(h.called) != "[kvm1]" {
			t.Errorf("named: %q after %v were called", text, h.called)
		}
	})
}

// A host that refuses a build has another do it; one that is still tidying up is asked again for the check.
func TestHostsThatRefuseFirst(t *testing.T) {
	inHouse(t, func(h *house) {
		h.script = patches("aaba", well)
		h.refuse = func(host string) error {
			if host == "kvm1" || len(h.called) == 3 {
				return errors.New("busy")
			}
			return nil
		}
		end := h.build(patch()).rest()
		if end.result.GetVersion().GetNumber() != 2 || fmt.Sprint(h.called) != "[kvm1 kvm2 kvm2 kvm2]" {
			t.Errorf("%v %v, called %v", end.result, end.err, h.called)
		}
	})
}

// Only the host that was called can begin the build, and once.
func TestStrangersDoNotGetIn(t *testing.T) {
	inHouse(t, func(h *house) {
		var id string
		found, goOn := make(chan struct{}), make(chan struct{})
		makes := patches("aaba", well)
		h.script = func(a *agent) {
			if !a.check() {
				id = a.id
				close(found)
				<-goOn
			}
			makes(a)
		}
		b := h.build(patch())
		<-found
		for _, c := range []struct{ host, id string }{{"kvm2", id}, {"kvm1", id}, {"kvm1", "guessed"}} {
			stranger := h.agent(c.host, c.id)
			if task := stranger.hear(); task != nil || !strings.Contains(status.Convert(stranger.err).Message(), "nobody waits") {
				t.Errorf("%s was let into %s: %v %v", c.host, c.id, task, stranger.err)
			}
			stranger.end()
		}
		if err := h.relay.Admit("kvm1", 0); err != nil {
			t.Error(err)
		}
		if err := h.relay.Admit("kvm1", 67<<20); !errors.Is(err, ErrTooMuch) {
			t.Errorf("more than the disk: %v", err)
		}
		if err := h.relay.Admit("kvm1", 40<<20); err != nil {
			t.Error(err)
		}
		if err := h.relay.Admit("kvm1", 40<<20); !errors.Is(err, ErrTooMuch) {
			t.Errorf("more than the disk in two parts: %v", err)
		}
		if err := h.relay.Admit("kvm2", 1); !errors.Is(err, ErrNotBuilding) {
			t.Errorf("another host: %v", err)
		}
		close(goOn)
		if end := b.rest(); end.result.GetVersion().GetNumber() != 2 {
			t.Error(end.err)
		}
		if err := h.relay.Admit("kvm1", 1); !errors.Is(err, ErrNotBuilding) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestWhatAdminsSayWrong(t *testing.T) {
	withFile := func(o *v1.BuildOrder) { o.Files = []*v1.BuildFile{{Path: "/tmp/a", Size: 4}} }
	for name, c := range map[string]struct {
		order *v1.BuildOrder
		say   func(*build)
		words string
	}{
		"nothing": {nil, func(b *build) { b.say(&v1.BuildRequest{Say: &v1.BuildRequest_Seal{Seal: &v1.SealNow{}}}) }, "no order"},
		"a longer file": {patch(withFile), func(b *build) {
			b.say(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: []byte("abcdef")}})
		}, "the files are longer than the order says, by 2 bytes"},
		"a shorter file": {patch(withFile), func(b *build) {
			b.say(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: []byte("ab")}})
			_ = b.stream.CloseSend()
		}, "2 bytes before the files did"},
		"a second order": {patch(), func(b *build) {
			b.say(&v1.BuildRequest{Say: &v1.BuildRequest_Order{Order: patch()}})
		}, "only files"},
		"a huge piece": {patch(withFile), func(b *build) {
			b.say(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: make([]byte, 2<<20)}})
		}, "file_piece"},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				ended := false
				h.script = func(a *agent) {
					for a.hear() != nil {
					}
					ended = true
				}
				b := h.build(c.order)
				c.say(b)
				if text := status.Convert(b.rest().err).Message(); !strings.Contains(text, c.words) {
					t.Errorf("ended with %q, want %q", text, c.words)
				}
				synctest.Wait()
				if c.order != nil && !ended {
					t.Error("the agent's stream goes on")
				}
			})
		})
	}
}

func TestCheck(t *testing.T) {
	check := func(n uint32) *v1.BuildOrder {
		return &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_CHECK, Image: "office", Version: n}
	}
	inHouse(t, func(h *house) {
		h.version(h.disk("abcd"))
		outcome := well()
		h.script = func(a *agent) { a.done(outcome) }
		end := h.build(check(0)).rest()
		if v := end.result.GetVersion(); v.GetNumber() != 2 || v.GetState() != v1.VersionState_VERSION_STATE_READY || v.GetCheck() != "office, in 12 s" {
			t.Errorf("the newest: %v %v", end.result, end.err)
		}
		outcome = &v1.BuildOutcome{Error: "kernel panic"}
		end = h.build(check(1)).rest()
		if text := status.Convert(end.err).Message(); !strings.Contains(text, "stays as it was: kernel panic") {
			t.Error(text)
		}
		if v := fmt.Sprint(h.versions()); v != "[READY READY]" {
			t.Errorf("versions %s: a check must not take a published version away", v)
		}
		image, _ := store.Get[*v1.Image](t.Context(), h.objects, "office")
		if c := image.GetStatus().GetVersions()[0].GetCheck(); c != "failed: kernel panic" {
			t.Errorf("noted %q", c)
		}
		if r := h.reasons(); r != "CheckFailed CheckStarted CheckStarted VersionReady" {
			t.Errorf("events %s", r)
		}
	})
}

func TestTail(t *testing.T) {
	var all []byte
	var kept tail
	for i := range 90000 {
		line := fmt.Appendf(nil, "line %d\n", i)
		all = append(all, line...)
		kept.write(line)
		if len(kept.kept) > 3*images.ChunkBytes {
			t.Fatalf("%d bytes are kept", len(kept.kept))
		}
	}
	if string(kept.bytes()) != string(all[len(all)-images.ChunkBytes:]) {
		t.Error("not the end of it")
	}
}
