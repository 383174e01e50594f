//go:build e2e

package libvirt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
)

// A guest boots from overlay, layer and root, opened by QEMU's own user, and reads what is in the layer.
func TestGuestOnLayer(t *testing.T) {
	r, host := newRig(t)
	ensure := func(im *hosttest.Image) {
		t.Helper()
		if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); err != nil {
			t.Fatal(err)
		}
	}
	newMachine := func(desktop string, im *hosttest.Image) hostagent.Machine {
		t.Helper()
		life := hostagent.Life{Desktop: desktop, UID: uuid.NewString(), Generation: 1}
		base, overlay, err := r.Disks.CreateOverlay(t.Context(), life, im.Digest(), 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		return hostagent.Machine{
			Life: life, VMUUID: uuid.NewString(), MAC: "52:54:00:00:00:07", VCPUs: 1, MemoryMiB: 128,
			Base: base, Overlay: overlay, VNC: filepath.Join(r.VNCDir, desktop+".vnc"), Emulate: r.Emulate,
		}
	}
	ensure(r.Image)
	disk, err := os.ReadFile(newMachine("before", r.Image).Base.Raw)
	if err != nil {
		t.Fatal(err)
	}
	const marker = "what only the layer has"
	at := len(disk)/images.ChunkBytes*images.ChunkBytes - images.ChunkBytes
	for at > 0 && !images.AllZero(disk[at:at+images.ChunkBytes]) {
		at -= images.ChunkBytes
	}
	copy(disk[at:], marker)
	next := hosttest.NewImage(t, bytes.NewReader(disk), int64(len(disk)))
	ensure(next)
	m := newMachine("after", next)
	if m.Base.Layer == "" {
		t.Fatalf("the next version is no layer: %+v", m.Base)
	}
	if err := host.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	tick, late := time.NewTicker(200*time.Millisecond), time.After(r.Patience)
	defer tick.Stop()
	for host.Ping(t.Context(), m.Life) != nil {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the guest does not answer")
		}
	}
	status, output, err := host.Exec(t.Context(), m.Life, []string{"/bin/sh", "-c", "dd if=/dev/vda bs=512 count=1 skip=" + strconv.Itoa(at/512) + " 2>/dev/null | head -c " + strconv.Itoa(len(marker))})
	if err != nil || status != 0 || output != marker {
		t.Errorf("the guest reads %q (status %d, %v)", output, status, err)
	}
	if gone, err := r.Disks.TrashBases(t.Context(), nil, time.Now().Add(time.Hour)); err != nil || len(gone) != 0 {
		t.Errorf("went under a running guest: %v (%v)", gone, err)
	}
	if err := host.Destroy(t.Context(), m.Life); err != nil {
		t.Error(err)
	}
}
