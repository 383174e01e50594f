package build_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/hostagent/fakehost"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// An offline patch works in an appliance, on the second disk, and publishes that one.
func TestOffline(t *testing.T) {
	ran := []string{}
	program := func(p *fakehost.Program) {
		p.Status = 0
		if len(p.Argv) < 6 || !strings.Contains(p.Argv[2], `chroot`) {
			return
		}
		root := p.Argv[4]
		at := slices.IndexFunc(p.Argv, func(a string) bool { return strings.Contains(a, "/script-") })
		script := string(p.Files[root+p.Argv[at]])
		for _, name := range []string{"daybreak-target", "patch it", "dpkg-query", "machine-id", "# usage: detach"} {
			if strings.Contains(script, name) && !(name == "daybreak-target" && strings.Contains(script, "# usage: detach")) {
				ran = append(ran, root+":"+name)
				break
			}
		}
		p.Files[p.Argv[5]] = nil
	}
	story(t, fakehost.Config{Program: program}, build.Config{}, func(r *rig) {
		r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) {
			o.Offline, o.Appliance, o.Script = true, "micro", []byte("patch it")
		})
		told := r.run()
		if told.Outcome.GetError() != "" || told.Manifest.Digest().String() != r.image.Digest() {
			t.Errorf("outcome %v, manifest %v; nothing was changed", told.Outcome, told.Manifest)
		}
		target := "/run/daybreak-target:"
		if want := []string{":daybreak-target", target + "patch it", target + "dpkg-query", target + "machine-id", ":# usage: detach"}; !slices.Equal(ran, want) {
			t.Errorf("ran %q, want %q", ran, want)
		}
	})
}

// A guest agent that is started anew while the script runs forgets it; what the script wrote down at its end counts.
func TestGuestAgentForgets(t *testing.T) {
	for name, c := range map[string]struct {
		status string
		alive  int
		want   string
	}{
		"ended":   {"0\n", 1, ""},
		"failed":  {"3\n", 1, "exit status 3"},
		"rubbish": {"zero", 1, "invalid syntax"},
		"gone":    {"", 1, "was the guest started anew?"},
		"runs":    {"", 0, "did not end within 1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			patching := 0
			program := func(p *fakehost.Program) {
				if strings.HasPrefix(p.Argv[2], "kill -0") {
					p.Status = c.alive
					return
				}
				shell(p)
				at := slices.IndexFunc(p.Argv, func(a string) bool { return strings.Contains(a, "/script-") })
				if at > 0 && strings.Contains(string(p.Files[p.Argv[at]]), "patch it") {
					patching++
					p.Forgotten = true
					p.Files[p.Argv[5]+".status"] = []byte(c.status)
				}
			}
			story(t, fakehost.Config{Program: program}, build.Config{}, func(r *rig) {
				r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) { o.Script = []byte("patch it") })
				told := r.run()
				if got := told.Outcome.GetError(); c.want == "" && got != "" || !strings.Contains(got, c.want) || patching != 1 {
					t.Errorf("outcome %v, want %q; patched %d times", told.Outcome, c.want, patching)
				}
			})
		})
	}
}

// A Windows guest goes through the same steps with its own programs.
func TestWindows(t *testing.T) {
	var ran []string
	program := func(p *fakehost.Program) {
		p.Status = 0
		if p.Argv[0] != `C:\Windows\System32\cmd.exe` {
			t.Errorf("a Windows guest was to run %q", p.Argv)
		}
		at := slices.Index(p.Argv, "-File")
		if at < 0 {
			return
		}
		script := string(p.Files[p.Argv[at+1]])
		out := p.Argv[slices.Index(p.Argv, ">")+1]
		switch {
		case script == "Install-It":
			p.Files[out] = []byte("installed\r\n")
			ran = append(ran, "script")
		case strings.Contains(script, "Get-Package"):
			p.Files[out] = []byte("7-Zip 24.08\r\nMicrosoft_Edge 131.0\r\n")
			ran = append(ran, "packages")
		case strings.Contains(script, `C:\ProgramData\Daybreak\seal.ps1`):
			p.Files[out] = nil
			ran = append(ran, "seal")
		}
	}
	story(t, fakehost.Config{Program: program, System: build.System{Windows: true, Name: "Windows 11 Pro"}}, build.Config{}, func(r *rig) {
		r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) {
			o.Script, o.Files = []byte("Install-It"), []*v1.BuildFile{{Path: `C:\Setup\it.msi`, Size: 3}}
		})
		r.plane.Then = []*v1.BuildTask{{Say: &v1.BuildTask_FilePiece{FilePiece: []byte("MSI")}}}
		told := r.run()
		if told.Outcome.GetError() != "" || told.Outcome.GetPackages() != "7-Zip 24.08\nMicrosoft_Edge 131.0\n" || told.Output != "installed\n" {
			t.Errorf("told %+v", told)
		}
		if want := []string{"script", "packages", "seal"}; !slices.Equal(ran, want) {
			t.Errorf("ran %q, want %q", ran, want)
		}
	})
}

// An interactive build shows its screen to one viewer after another, and goes on when its admin is done.
func TestInteractive(t *testing.T) {
	dir := t.TempDir()
	disk := make([]byte, images.ChunkBytes)
	copy(disk, "golden")
	image := hosttest.NewImage(t, bytes.NewReader(disk), int64(len(disk)))
	host := fakehost.New(fakehost.Config{
		Program: shell, PowerOff: time.Millisecond,
		Boot: func(life hostagent.Life) fakehost.Boot {
			serveScreen(t, filepath.Join(dir, life.UID+".vnc"))
			return fakehost.Boot{After: time.Millisecond}
		},
	})
	plane := hosttest.NewPlane(image)
	plane.ID = "ask-1"
	plane.Task = &v1.BuildAssignment{Digest: image.Digest(), Order: &v1.BuildOrder{
		Kind: v1.BuildKind_BUILD_KIND_PATCH, Image: "office", Interactive: true, Shape: &v1.Shape{MemoryMib: 512},
	}}
	waiting, said := false, ""
	plane.Say = func(update *v1.BuildUpdate, answer func(*v1.BuildTask)) error {
		waiting = waiting || update.GetProgress().GetWaiting()
		switch said += string(update.GetScreen()); said {
		case "hello ":
			answer(&v1.BuildTask{Say: &v1.BuildTask_Screen{Screen: []byte("echo ")}})
		case "hello echo ":
			answer(&v1.BuildTask{Say: &v1.BuildTask_Screen{}})
		case "hello echo hello ":
			answer(&v1.BuildTask{Say: &v1.BuildTask_Seal{}})
			answer(&v1.BuildTask{Say: &v1.BuildTask_Seal{}})
		}
		return nil
	}
	builder, err := build.New(build.Config{VNCDir: dir}, host, host, host, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	group.Go(func() error { return plane.Serve(ctx) })
	group.Go(func() error { return builder.Run(ctx) })
	defer func() {
		cancel()
		_ = group.Wait()
	}()
	call := hostagent.BuildCall{ID: "ask-1", MemoryMiB: 512, Dial: plane.Dial, Source: plane}
	for tick := time.NewTicker(time.Millisecond); builder.Accept(call) != nil; <-tick.C {
	}
	for tick := time.NewTicker(time.Millisecond); builder.MemoryMiB() != 0; <-tick.C {
	}
	if told := plane.Told(); told.Outcome == nil || told.Outcome.GetError() != "" || !waiting || said != "hello echo hello " {
		t.Errorf("outcome %v; said %q, waiting %t", told.Outcome, said, waiting)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("screens left: %v (%v)", entries, err)
	}
}

// serveScreen is a screen server that greets, and says again what it hears.
func serveScreen(t *testing.T, path string) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write([]byte("hello "))
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// A VM that ends, or stands still on a full store, ends its build.
func TestVMTrouble(t *testing.T) {
	for want, trouble := range map[string]func(*fakehost.Host, hostagent.Life){
		"the VM ended by itself":            func(h *fakehost.Host, life hostagent.Life) { h.Kill(life) },
		"the host's store is full or fails": func(h *fakehost.Host, life hostagent.Life) { h.SetState(life, hostagent.DomainPausedIO) },
	} {
		t.Run(want, func(t *testing.T) {
			story(t, fakehost.Config{Program: shell}, build.Config{}, func(r *rig) {
				r.order(v1.BuildKind_BUILD_KIND_PATCH, func(o *v1.BuildOrder) { o.Script = []byte("hang") })
				if err := r.builder.Accept(r.call()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				trouble(r.host, r.host.Running()[0])
				r.await("the build ends", func() bool { return r.builder.MemoryMiB() == 0 })
				if told := r.plane.Told(); !strings.Contains(told.Outcome.GetError(), want) {
					t.Errorf("outcome %v, want %q", told.Outcome, want)
				}
				r.nothingLeft()
			})
		})
	}
}
