package build_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/hostagent/fakehost"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

// rig is a host that does builds, and a control plane, in a bubble of virtual time.
type rig struct {
	t       *testing.T
	host    *fakehost.Host
	plane   *hosttest.Plane
	image   *hosttest.Image
	builder *build.Builder
	stop    func()
}

const pieces = 20

func story(t *testing.T, host fakehost.Config, cfg build.Config, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := make([]byte, pieces*images.ChunkBytes)
		copy(disk, "a golden image")
		copy(disk[7*images.ChunkBytes:], "and more of it")
		r := &rig{t: t, host: fakehost.New(host), image: hosttest.NewImage(t, bytes.NewReader(disk), int64(len(disk)))}
		r.plane = hosttest.NewPlane(r.image)
		r.plane.ID = "ask-1"
		ctx, cancel := context.WithCancel(t.Context())
		var group errgroup.Group
		group.Go(func() error { return r.plane.Serve(ctx) })
		defer func() {
			r.stop()
			cancel()
			_ = group.Wait()
			r.nothingLeft()
		}()
		r.start(cfg)
		test(r)
	})
}

// start runs a builder until stop.
func (r *rig) start(cfg build.Config) {
	r.t.Helper()
	var err error
	r.builder, err = build.New(cfg, r.host, r.host, r.host, zerolog.New(zerolog.NewTestWriter(r.t)))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	var group errgroup.Group
	group.Go(func() error { return r.builder.Run(ctx) })
	r.stop = func() {
		cancel()
		if err := group.Wait(); !errors.Is(err, context.Canceled) {
			r.t.Errorf("Run ended with %v", err)
		}
	}
	synctest.Wait()
}

func (r *rig) call() hostagent.BuildCall {
	return hostagent.BuildCall{ID: "ask-1", MemoryMiB: 512, Dial: r.plane.Dial, Source: r.plane}
}

// order makes the plane's assignment.
func (r *rig) order(kind v1.BuildKind, change func(*v1.BuildOrder)) {
	order := &v1.BuildOrder{Kind: kind, Image: "office", Shape: &v1.Shape{Vcpus: 1, MemoryMib: 512}, BootTimeout: durationpb.New(time.Minute)}
	if change != nil {
		change(order)
	}
	r.plane.Task = &v1.BuildAssignment{Order: order, Digest: r.image.Digest()}
	if order.GetOffline() {
		r.plane.Task.ApplianceDigest = r.image.Digest()
	}
}

// run does the build that was ordered and returns its outcome.
func (r *rig) run() hosttest.Told {
	r.t.Helper()
	if err := r.builder.Accept(r.call()); err != nil {
		r.t.Fatal(err)
	}
	r.await("the build ends", func() bool { return r.builder.MemoryMiB() == 0 })
	told := r.plane.Told()
	if told.Outcome == nil {
		r.t.Fatal("no outcome was told")
	}
	r.nothingLeft()
	return told
}

func (r *rig) await(what string, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(3 * time.Hour); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

// nothingLeft looks for VMs and overlays.
func (r *rig) nothingLeft() {
	r.t.Helper()
	vms := r.host.Running()
	overlays, err := r.host.BuildOverlays(context.Background())
	if err != nil || len(vms)+len(overlays) != 0 {
		r.t.Errorf("left on the host: VMs %v, overlays %v (%v)", vms, overlays, err)
	}
}

// shell is a guest's shell as far as builds use it: the admin's script writes piece 3 of the disk and prints a line.
func shell(p *fakehost.Program) {
	p.Status = 0
	if len(p.Argv) < 6 || !strings.Contains(p.Argv[2], `chroot`) {
		return
	}
	root, output := p.Argv[4], p.Argv[5]
	at := slices.IndexFunc(p.Argv, func(a string) bool { return strings.Contains(a, "/script-") })
	script := string(p.Files[root+p.Argv[at]])
	p.Files[output] = nil
	switch {
	case strings.Contains(script, "dpkg-query"):
		p.Files[output] = []byte("netbase 6.4\nnonsense\n\x1b[31mred 1\x07\n")
	case strings.Contains(script, "patch it"):
		p.Files[output] = []byte("patched\x1b[2J it\r\n")
		p.After = 20 * time.Second
		p.WriteDisk(p.Life, 3, []byte("patched"))
		p.WriteDisk(p.Life, 7, make([]byte, images.ChunkBytes))
	case strings.Contains(script, "fail"):
		p.Status = 7
	case strings.Contains(script, "hang"):
		p.After = 1000 * time.Hour
	}
}

func TestCheck(t *testing.T) {
	story(t, fakehost.Config{Program: shell, System: build.System{Name: "Fake 1"}}, build.Config{}, func(r *rig) {
		r.order(v1.BuildKind_BUILD_KIND_CHECK, nil)
		outcome := r.run().Outcome
		if outcome.GetError() != "" || outcome.GetPackages() != "netbase 6.4\n[31mred 1\n" {
			t.Errorf("outcome %v", outcome)
		}
		if want := "guest agent answered 5 s after the start; host name office; Fake 1"; outcome.GetCheck() != want {
			t.Errorf("check %q, want %q", outcome.GetCheck(), want)
		}
	})
}

func TestPatch(t *testing.T) {
	story(t, fakehost.Config{Program: shell}, build.Config{}, func(r *rig) {
		file := bytes.Repeat([]byte("file "), 1<<18)
		r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) {
			o.Script = []byte("patch it\n")
			o.Files = []*v1.BuildFile{{Path: "/srv/a", Size: uint64(len(file)) - 3, Mode: 0o755}, {Path: "/srv/b", Size: 3}}
		})
		for part := range slices.Chunk(file, 100_000) {
			r.plane.Then = append(r.plane.Then, &v1.BuildTask{Say: &v1.BuildTask_FilePiece{FilePiece: part}})
		}
		told := r.run()
		if outcome := told.Outcome; outcome.GetError() != "" || outcome.GetReadBytes() != images.ChunkBytes || outcome.GetSentBytes() == 0 || outcome.GetSentBytes() > 1000 {
			t.Errorf("outcome %v, want one chunk read and little sent", outcome)
		}
		if told.Output != "patched[2J it\n" {
			t.Errorf("output %q", told.Output)
		}
		manifest := told.Manifest
		want := make([]byte, images.ChunkBytes)
		copy(want, "patched")
		if manifest.Piece(3).Digest != images.Sum(want) || !manifest.Piece(7).Zero() || manifest.Piece(0).Zero() || told.Put != 1 {
			t.Errorf("%d chunks were sent, pieces %v %v", told.Put, manifest.Piece(3), manifest.Piece(7))
		}
	})
}

// nobody trusts no publisher at all.
func nobody(t *testing.T) *sign.Publishers {
	t.Helper()
	publishers, err := sign.NewPublishers()
	if err != nil {
		t.Fatal(err)
	}
	return publishers
}

// Whatever goes wrong, it is told, and nothing is left.
func TestFailures(t *testing.T) {
	patch := func(script string) func(*v1.BuildOrder) {
		return func(o *v1.BuildOrder) { o.Script = []byte(script) }
	}
	always := func(op fakehost.Op) func(fakehost.Op, hostagent.Life) fakehost.Fault {
		return func(now fakehost.Op, _ hostagent.Life) fakehost.Fault {
			if now == op {
				return fakehost.Fault{Refuse: errors.New("made to fail")}
			}
			return fakehost.Fault{}
		}
	}
	for name, c := range map[string]struct {
		host  fakehost.Config
		cfg   build.Config
		order func(*v1.BuildOrder)
		want  string
	}{
		"script fails":       {order: patch("fail"), want: "the script ended with exit status 7"},
		"script hangs":       {order: patch("hang"), want: "the script did not end within 1h0m0s"},
		"guest hangs":        {host: fakehost.Config{Boot: func(hostagent.Life) fakehost.Boot { return fakehost.Boot{Hangs: true} }}, want: "did not answer within 1m0s"},
		"no room":            {host: fakehost.Config{StoreBytes: (pieces + 1) * images.ChunkBytes}, want: "not enough space"},
		"no VM":              {host: fakehost.Config{Fault: always(fakehost.OpStart)}, want: "made to fail"},
		"no begin":           {host: fakehost.Config{Fault: always(fakehost.OpBegin)}, want: "made to fail"},
		"no end":             {host: fakehost.Config{Fault: always(fakehost.OpShutdown)}, order: patch("patch it"), want: "not shut down in order"},
		"unreadable overlay": {host: fakehost.Config{Fault: always(fakehost.OpChanges)}, want: "made to fail"},
		"unknown zone":       {order: func(o *v1.BuildOrder) { o.Zone = "lgwan" }, want: "no network of zone lgwan"},
		"more memory":        {order: func(o *v1.BuildOrder) { o.Shape.MemoryMib = 4096 }, want: "asked for 512"},
		"relative path":      {order: func(o *v1.BuildOrder) { o.Files = []*v1.BuildFile{{Path: "etc/passwd"}} }, want: "not an absolute one"},
		"not signed":         {cfg: build.Config{Publishers: nobody(t)}, want: "version of office is not run"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.host.Program == nil {
				c.host.Program = shell
			}
			story(t, c.host, c.cfg, func(r *rig) {
				r.order(v1.BuildKind_BUILD_KIND_PATCH, c.order)
				if told := r.run(); !strings.Contains(told.Outcome.GetError(), c.want) || told.Manifest != nil {
					t.Errorf("outcome %v, want %q; manifest %v", told.Outcome, c.want, told.Manifest)
				}
			})
		})
	}
}

// The end of the stream, or of the agent, at any step ends the build.
func TestGone(t *testing.T) {
	for _, step := range []string{"fetching", "starting", "waiting for the guest", "copying file", "running", "sealing", "shutting", "reading"} {
		t.Run(step, func(t *testing.T) {
			story(t, fakehost.Config{Program: shell}, build.Config{}, func(r *rig) {
				r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) {
					o.Script = []byte("patch it\n")
					if step == "copying file" {
						o.Files = []*v1.BuildFile{{Path: "/a", Size: 10}}
					}
				})
				r.plane.Say = func(update *v1.BuildUpdate, _ func(*v1.BuildTask)) error {
					if strings.HasPrefix(update.GetProgress().GetText(), step) {
						return status.Error(codes.Aborted, "Ctrl-C")
					}
					return nil
				}
				if err := r.builder.Accept(r.call()); err != nil {
					t.Fatal(err)
				}
				r.await("the build ends", func() bool { return r.builder.MemoryMiB() == 0 })
				r.nothingLeft()
				if r.plane.Ended() {
					t.Error("an outcome for nobody")
				}
			})
		})
	}
}

func TestAgentStops(t *testing.T) {
	story(t, fakehost.Config{Program: shell}, build.Config{}, func(r *rig) {
		r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) { o.Script = []byte("hang") })
		if err := r.builder.Accept(r.call()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if len(r.host.Running()) != 1 {
			t.Fatal("no VM runs")
		}
		r.stop()
		r.nothingLeft()
		r.start(build.Config{})
	})
}

// What a killed agent left is taken away before anything new is accepted.
func TestLeftovers(t *testing.T) {
	down := true
	fault := func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
		if op == fakehost.OpBuilds && down {
			return fakehost.Fault{Refuse: errors.New("nothing is known yet")}
		}
		return fakehost.Fault{}
	}
	story(t, fakehost.Config{Program: shell, Fault: fault}, build.Config{}, func(r *rig) {
		life := hostagent.Life{Desktop: "office", UID: "6f9f3d0c-6a3d-4f0e-9a55-0123456789ab", Generation: 1, Build: true}
		if err := r.host.EnsureBase(t.Context(), r.image.Digest(), r.image, func(uint32) {}); err != nil {
			t.Fatal(err)
		}
		base, overlay, err := r.host.CreateOverlay(t.Context(), life, r.image.Digest(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.host.Start(t.Context(), hostagent.Machine{Life: life, VMUUID: life.UID, Base: base, Overlay: overlay}); err != nil {
			t.Fatal(err)
		}
		if err := r.builder.Accept(r.call()); err == nil {
			t.Error("a call was accepted before the host was cleared")
		}
		down = false
		r.await("the host is cleared", func() bool { return len(r.host.Running()) == 0 })
		synctest.Wait()
		r.nothingLeft()
		r.order(v1.BuildKind_BUILD_KIND_CHECK, nil)
		if outcome := r.run().Outcome; outcome.GetError() != "" {
			t.Errorf("afterwards: %v", outcome)
		}
	})
}

func TestAccept(t *testing.T) {
	story(t, fakehost.Config{Program: shell}, build.Config{Max: 2}, func(r *rig) {
		r.order(v1.BuildKind_BUILD_KIND_CHECK, nil)
		first, second, third := r.call(), r.call(), r.call()
		second.ID, third.ID = "unwanted", "ask-3"
		if err := errors.Join(r.builder.Accept(first), r.builder.Accept(second)); err != nil {
			t.Fatal(err)
		}
		if memory := r.builder.MemoryMiB(); memory != 1024 {
			t.Errorf("builds take %d MiB, want 1024", memory)
		}
		if err := r.builder.Accept(third); err == nil || !strings.Contains(err.Error(), "2 builds already") {
			t.Errorf("a third build: %v", err)
		}
		r.await("both end", func() bool { return r.builder.MemoryMiB() == 0 })
	})
}
