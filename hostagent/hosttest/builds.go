package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"daybreak/hostagent"
	"daybreak/images"
	"daybreak/images/pack"
)

// newBuild makes a life of a new build.
func newBuild(name string) hostagent.Life {
	return hostagent.Life{Desktop: name, UID: uuid.NewString(), Generation: 1, Build: true}
}

// testBuild goes through the whole of a build's VM: it is nobody's desktop, its guest can be worked in, and what it wrote
// can be read afterwards.
func (r *Rig) testBuild(t *testing.T) {
	life := newBuild("micro")
	m := r.machine(t, life, life.UID)
	r.start(t, m)
	r.eventually(t, "build's guest answers", func() error { return r.BuildGuest.Ping(t.Context(), life) })
	r.apart(t, life)
	system, err := r.BuildGuest.System(t.Context(), life)
	if err != nil || system.Hostname == "" || system.Windows {
		t.Errorf("System = %+v, %v", system, err)
	}
	r.files(t, life)
	r.programs(t, life)
	ctx, cancel := context.WithTimeout(t.Context(), r.Patience)
	defer cancel()
	if _, _, err := r.BuildDisks.Changes(t.Context(), life, r.Image.Digest()); err == nil {
		t.Error("Changes of a VM that runs succeeded")
	}
	if err := r.Builds.PowerOff(ctx, life); err != nil {
		t.Fatalf("PowerOff: %v", err)
	}
	if list, err := r.Builds.Builds(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after PowerOff: %+v, %v", list, err)
	}
	r.changes(t, life)
	if err := r.BuildDisks.TrashOverlay(t.Context(), life); err != nil {
		t.Error(err)
	}
	if lives, err := r.BuildDisks.BuildOverlays(t.Context()); err != nil || len(lives) != 0 {
		t.Errorf("after TrashOverlay: %+v, %v", lives, err)
	}
}

// apart: what is a build's is no desktop's.
func (r *Rig) apart(t *testing.T, life hostagent.Life) {
	t.Helper()
	if list, err := r.look(t.Context(), life.UID); err != nil || len(list) != 0 {
		t.Errorf("listed among desktops: %+v, %v", list, err)
	}
	if lives, err := r.Disks.Overlays(t.Context()); err != nil || slices.Contains(lives, life) {
		t.Errorf("overlay listed among desktops': %+v, %v", lives, err)
	}
	if lives, err := r.BuildDisks.BuildOverlays(t.Context()); err != nil || len(lives) != 1 || lives[0] != life {
		t.Errorf("BuildOverlays = %+v, %v", lives, err)
	}
	if list, err := r.Builds.Builds(t.Context()); err != nil || len(list) != 1 || list[0].Life != life || list[0].State != hostagent.DomainRunning {
		t.Errorf("Builds = %+v, %v", list, err)
	}
	other := life
	other.Build = false
	if err := r.Hypervisor.Destroy(t.Context(), other); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Destroy of a desktop with a build's uid: %v, want ErrNotFound", err)
	}
}

func (r *Rig) files(t *testing.T, life hostagent.Life) {
	t.Helper()
	content := []byte(strings.Repeat("町役場の朝 \x00\n", 40000)) // more than goes into one word
	if err := r.BuildGuest.Put(t.Context(), life, "/tmp/put", bytes.NewReader(content)); err != nil {
		t.Fatalf("Put: %v", err)
	}
	var back []byte
	for {
		part, err := r.BuildGuest.Get(t.Context(), life, "/tmp/put", int64(len(back)), 100_000)
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if len(part) == 0 {
			break
		}
		back = append(back, part...)
	}
	if !bytes.Equal(content, back) {
		t.Errorf("Get gave %d bytes other than the %d of Put", len(back), len(content))
	}
	if err := r.BuildGuest.Put(t.Context(), life, "/tmp/put", strings.NewReader("")); err != nil {
		t.Errorf("Put of nothing: %v", err)
	}
	if part, err := r.BuildGuest.Get(t.Context(), life, "/tmp/put", 0, 10); err != nil || len(part) != 0 {
		t.Errorf("a file written anew: %q, %v", part, err)
	}
	if _, err := r.BuildGuest.Get(t.Context(), life, "/tmp/nothing", 0, 10); !errors.Is(err, hostagent.ErrGuest) {
		t.Errorf("Get of a file that is not there: %v, want ErrGuest", err)
	}
}

func (r *Rig) programs(t *testing.T, life hostagent.Life) {
	t.Helper()
	pid, err := r.BuildGuest.Begin(t.Context(), life, r.WriteFile("/tmp/written", "by a program", 3))
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	r.eventually(t, "program ends", func() error {
		status, ended, err := r.BuildGuest.Ended(t.Context(), life, pid)
		if err == nil && ended && status != 3 {
			t.Errorf("status %d, want 3", status)
		}
		if err == nil && !ended {
			err = errNotYet
		}
		return err
	})
	if _, _, err := r.BuildGuest.Ended(t.Context(), life, pid); !errors.Is(err, hostagent.ErrGuest) {
		t.Errorf("Ended once more: %v, want ErrGuest", err)
	}
	if part, err := r.BuildGuest.Get(t.Context(), life, "/tmp/written", 3, 100); err != nil || string(part) != "a program" {
		t.Errorf("what the program wrote: %q, %v", part, err)
	}
}

// changes: what a VM wrote is a small part of its disk, and all of it can be read.
func (r *Rig) changes(t *testing.T, life hostagent.Life) {
	t.Helper()
	parent, disk, err := r.BuildDisks.Changes(t.Context(), life, r.Image.Digest())
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	defer disk.Close()
	if parent.Digest().String() != r.Image.Digest() {
		t.Errorf("parent %s, want %s", parent.Digest(), r.Image.Digest())
	}
	buf, changed := make([]byte, images.ChunkBytes), 0
	for piece := range parent.Pieces() {
		if disk.Piece(piece.Index) != pack.Written {
			continue
		}
		changed++
		if _, err := disk.ReadAt(buf[:piece.Length], piece.Offset); err != nil {
			t.Errorf("piece %d: %v", piece.Index, err)
		}
	}
	if changed > parent.Len()/2 {
		t.Errorf("%d of %d pieces changed", changed, parent.Len())
	}
}

// testBuildKilled: a VM that ended in another way than by its guest was not powered off.
func (r *Rig) testBuildKilled(t *testing.T) {
	if r.KillGuest == nil {
		t.Skip("this host's guests cannot be killed")
	}
	life := newBuild("micro")
	r.start(t, r.machine(t, life, life.UID))
	r.eventually(t, "build's guest answers", func() error { return r.BuildGuest.Ping(t.Context(), life) })
	ctx, cancel := context.WithTimeout(t.Context(), r.Patience)
	defer cancel()
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		r.KillGuest(life)
	}()
	err := r.Builds.PowerOff(ctx, life)
	<-killed
	if err == nil {
		t.Error("PowerOff of a VM whose QEMU was killed succeeded")
	}
	r.eventually(t, "VM is gone", func() error {
		if list, err := r.Builds.Builds(t.Context()); err != nil || len(list) != 0 {
			return fmt.Errorf("%w: %v, %v", errNotYet, list, err)
		}
		return nil
	})
}
