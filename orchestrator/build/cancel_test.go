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

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// When the admin goes, at whatever step, the agent's stream ends at once and there is no version that could be run.
func TestAdminGoes(t *testing.T) {
	flood := func(a *agent) {
		for a.output(strings.Repeat("y", 60000)) {
		}
	}
	waits := func(a *agent) {
		for a.hear() != nil {
		}
	}
	for name, c := range map[string]struct {
		script   func(a *agent) // nil: the agent has not come yet
		versions string
	}{
		"while the host is called": {nil, "[READY]"},
		// The admin reads nothing: the agent's words fill every buffer on the way, and no more.
		"in a flood of output": {flood, "[READY]"},
		// The agent does not read: the admin's files do. What is on the way comes before the end.
		"while files wait": {func(a *agent) {
			time.Sleep(time.Second)
			waits(a)
		}, "[READY]"},
		"while the script runs": {waits, "[READY]"},
		"while it is checked": {func(a *agent) {
			if a.check() {
				waits(a)
				return
			}
			patches("aaba", nil)(a)
		}, "[READY WITHDRAWN]"},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				came, ended := 0, 0
				if c.script != nil {
					h.script = func(a *agent) {
						came++
						c.script(a)
						ended++
					}
				}
				order := patch()
				if name == "while files wait" {
					order.Files = []*v1.BuildFile{{Path: "/tmp/a", Size: 1 << 30}}
				}
				b := h.build(order)
				h.group.Go(func() error {
					for len(order.GetFiles()) > 0 && b.say(&v1.BuildRequest{Say: &v1.BuildRequest_FilePiece{FilePiece: make([]byte, 1<<20)}}) {
					}
					return nil
				})
				synctest.Wait()
				b.end()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if came != ended {
					t.Errorf("%d agents came, %d have ended", came, ended)
				}
				if v := fmt.Sprint(h.versions()); v != c.versions {
					t.Errorf("versions %s, want %s", v, c.versions)
				}
				if r := h.reasons(); !strings.Contains(r, "PatchFailed") {
					t.Errorf("events %s", r)
				}
				if len(h.relay.jobs)+len(h.relay.legs) > 0 {
					t.Error("the build is still counted")
				}
			})
		})
	}
}

// When daybreakd is stopped builds end, and a version that was not checked stays a draft.
func TestStopping(t *testing.T) {
	for name, c := range map[string]struct {
		script   func(a *agent)
		versions string
	}{
		"while the host is called": {nil, "[READY]"},
		"while the script runs":    {func(a *agent) { a.hear() }, "[READY]"},
		"while it is checked": {func(a *agent) {
			if a.check() {
				a.hear()
				return
			}
			patches("aaba", nil)(a)
		}, "[READY DRAFT]"},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				h.script = c.script
				b := h.build(patch())
				synctest.Wait()
				close(h.closing)
				if text := status.Convert(b.rest().err).Message(); !strings.Contains(text, "being stopped") {
					t.Errorf("ended with %q", text)
				}
				if v := fmt.Sprint(h.versions()); v != c.versions {
					t.Errorf("versions %s, want %s", v, c.versions)
				}
			})
		})
	}
}

func TestInteractive(t *testing.T) {
	interactive := patch(func(o *v1.BuildOrder) { o.Interactive, o.Script = true, nil })
	for _, sealer := range []string{"stream", "call"} {
		t.Run(sealer, func(t *testing.T) {
			inHouse(t, func(h *house) {
				if err := h.relay.Seal("office"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("nothing to seal: %v", err)
				}
				ready := make(chan struct{})
				makes := patches("aaba", well)
				h.script = func(a *agent) {
					if a.check() {
						makes(a)
						return
					}
					<-ready
					a.progress("waiting", true)
					for task := a.hear(); task.GetSeal() == nil; task = a.hear() {
						if task == nil {
							t.Error("ended before the seal")
							return
						}
						a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Screen{Screen: append([]byte("echo "), task.GetScreen()...)}})
					}
					makes(a)
				}
				b := h.build(interactive)
				synctest.Wait()
				if err := h.relay.Seal("office"); !errors.Is(err, ErrRefused) {
					t.Errorf("not waiting yet: %v", err)
				}
				if text := status.Convert(h.build(interactive).rest().err).Message(); !strings.Contains(text, "taro patches image office interactively already") {
					t.Errorf("a second one: %q", text)
				}
				close(ready)
				for {
					response, err := b.stream.Recv()
					if err != nil {
						t.Fatal(err)
					}
					if response.GetProgress().GetWaiting() {
						break
					}
				}
				b.say(&v1.BuildRequest{Say: &v1.BuildRequest_Screen{Screen: []byte("key")}})
				if response, err := b.stream.Recv(); err != nil || string(response.GetScreen()) != "echo key" {
					t.Errorf("%v %v", response, err)
				}
				if sealer == "stream" {
					b.say(&v1.BuildRequest{Say: &v1.BuildRequest_Seal{Seal: &v1.SealNow{}}})
				} else if err := h.relay.Seal("office"); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if err := h.relay.Seal("office"); err == nil {
					t.Error("sealed twice")
				}
				if end := b.rest(); end.result.GetVersion().GetNumber() != 2 {
					t.Error(end.err)
				}
			})
		})
	}
}

func TestSoManyBuilds(t *testing.T) {
	inHouse(t, func(h *house) {
		h.script = func(a *agent) { a.hear() }
		var all []*build
		for range 4 {
			all = append(all, h.build(patch(func(o *v1.BuildOrder) { o.Shape = &v1.Shape{MemoryMib: 7000} })))
			synctest.Wait()
		}
		// Two of 7000 MiB fit on a host; hosts that have not reported them yet are not given a third.
		if got := fmt.Sprint(h.called); got != "[kvm1 kvm1 kvm2 kvm2]" {
			t.Errorf("called %s", got)
		}
		text := status.Convert(h.build(patch()).rest().err).Message()
		if !strings.Contains(text, "2 hosts lack memory (needs 2048 MiB, at most 1360 free)") {
			t.Errorf("one more: %q", text)
		}
		text = status.Convert(h.build(patch(func(o *v1.BuildOrder) { o.Host, o.Shape = "kvm2", &v1.Shape{MemoryMib: 512} })).rest().err).Message()
		if !strings.Contains(text, "host kvm2 has 2 builds under way") {
			t.Errorf("one more on a host: %q", text)
		}
		for _, b := range all {
			b.end()
		}
	})
}

func TestOrders(t *testing.T) {
	check := func(edit ...func(*v1.BuildOrder)) *v1.BuildOrder {
		o := &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_CHECK, Image: "office"}
		for _, e := range edit {
			e(o)
		}
		return o
	}
	orders := map[string]struct {
		order *v1.BuildOrder
		words string
	}{
		"no script":       {patch(func(o *v1.BuildOrder) { o.Script = nil }), "a patch needs one, unless it is interactive"},
		"no image":        {patch(func(o *v1.BuildOrder) { o.Image = "nothing" }), "there is no image nothing"},
		"no version":      {patch(func(o *v1.BuildOrder) { o.Version = 9 }), "image office has no version 9"},
		"no zone":         {patch(func(o *v1.BuildOrder) { o.Zone = "core" }), "there is no zone core"},
		"no host":         {patch(func(o *v1.BuildOrder) { o.Host = "kvm9" }), "there is no host kvm9"},
		"too large":       {patch(func(o *v1.BuildOrder) { o.Shape = &v1.Shape{MemoryMib: 1 << 20} }), "2 hosts lack memory"},
		"data disk":       {patch(func(o *v1.BuildOrder) { o.Shape = &v1.Shape{DataDiskGib: 1} }), "a build has no data disk"},
		"no appliance":    {patch(func(o *v1.BuildOrder) { o.Offline = true }), "needs the image to run in"},
		"appliance only":  {patch(func(o *v1.BuildOrder) { o.Appliance = "office" }), "no other patch takes one"},
		"which appliance": {patch(func(o *v1.BuildOrder) { o.Offline, o.Appliance = true, "nothing" }), "no image nothing to be the appliance"},
		"offline and interactive": {patch(func(o *v1.BuildOrder) { o.Offline, o.Appliance, o.Interactive = true, "office", true }),
			"cannot be interactive"},
		"relative path": {patch(func(o *v1.BuildOrder) { o.Files = []*v1.BuildFile{{Path: "tmp/a"}} }), `"tmp/a" is not an absolute path`},
		"too many bytes": {patch(func(o *v1.BuildOrder) {
			o.Files = []*v1.BuildFile{{Path: "/a", Size: 3 * gib}, {Path: "/b", Size: 3 * gib}}
		}), "more than the 4294967296"},
		"a check with script": {check(func(o *v1.BuildOrder) { o.Script = []byte("true") }), "takes no script"},
		"a rule of the proto": {check(func(o *v1.BuildOrder) { o.Note = "a\x00b" }), "note"},
	}
	inHouse(t, func(h *house) {
		for name, c := range orders {
			if text := status.Convert(h.build(c.order).rest().err).Message(); !strings.Contains(text, c.words) {
				t.Errorf("%s: %q, want %q", name, text, c.words)
			}
			if len(h.called) > 0 || h.reasons() != "" {
				t.Errorf("%s: called %v, events %s", name, h.called, h.reasons())
			}
		}
	})
}

// What an agent is told has all defaults filled in, and what it needs to trust the content.
func TestAssignment(t *testing.T) {
	inHouse(t, func(h *house) {
		var told *v1.BuildAssignment
		h.script = func(a *agent) { told = a.assignment }
		h.build(patch(func(o *v1.BuildOrder) { o.Offline, o.Appliance = true, "office" })).rest()
		want := manifestOf(t, "aaaa").Digest().String()
		o := told.GetOrder()
		if told.GetDigest() != want || told.GetApplianceDigest() != want || o.GetVersion() != 1 || o.GetShape().GetVcpus() != 2 ||
			o.GetShape().GetMemoryMib() != 2048 || o.GetBootTimeout().AsDuration() != 5*time.Minute || o.GetScriptTimeout().AsDuration() != time.Hour {
			t.Errorf("told %v", told)
		}
	})
}

func TestWithdrawnIsNotBuiltUpon(t *testing.T) {
	inHouse(t, func(h *house) {
		h.version(h.disk("abcd"))
		if _, err := h.intake.MarkFailed(t.Context(), time.Now(), "office", 2, "bad", true); err != nil {
			t.Fatal(err)
		}
		text := status.Convert(h.build(patch(func(o *v1.BuildOrder) { o.Version = 2 })).rest().err).Message()
		if !strings.Contains(text, "version 2 of image office is withdrawn") {
			t.Error(text)
		}
		// A patch that comes to that very content does not bring it back.
		h.script = patches("abcd", well)
		text = status.Convert(h.build(patch()).rest().err).Message()
		if !strings.Contains(text, "the very content of version 2") || fmt.Sprint(h.versions()) != "[READY WITHDRAWN]" {
			t.Error(text, h.versions())
		}
	})
}

// What a pool went back from is patched only by whoever says so.
func TestRolledBackIsNotBuiltUponByDefault(t *testing.T) {
	inHouse(t, func(h *house) {
		pool := &v1.Pool{Meta: &v1.Meta{Name: "counter"}, Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan"},
			Release: &v1.Release{Image: "office", Version: 3, Refused: 1}}
		if _, err := h.backend.Commit(h.ctx, store.Guard{}, []store.Op{store.Create(pool)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h.script = patches("abcd", well)
		text := status.Convert(h.build(patch(func(o *v1.BuildOrder) { o.Version = 0 })).rest().err).Message()
		if !strings.Contains(text, "pool counter went back from version 1 of image office to version 3: say with --version") {
			t.Error(text)
		}
		if err := h.build(patch(func(o *v1.BuildOrder) { o.Version = 1 })).rest().err; !errors.Is(err, io.EOF) {
			t.Errorf("named: %v", err)
		}
	})
}
