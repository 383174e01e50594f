package hostagent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/disk"
	"daybreak/hostagent/fakehost"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// realBases is the host with bases and overlays in real files. Before a VM starts it looks at the base as the guest would.
type realBases struct {
	*fakehost.Host
	t     *testing.T
	store *disk.Store
	root  string
	want  []byte
	// damaged counts VMs that were started on a base that is not what its digest says.
	damaged int
}

func (r *rig) withRealBases() *realBases {
	r.t.Helper()
	root := filepath.Join(r.t.TempDir(), "store")
	store, err := disk.Open(disk.Config{Root: root}, zerolog.Nop())
	if err != nil {
		r.t.Fatal(err)
	}
	r.real = &realBases{Host: r.host, t: r.t, store: store, root: root}
	for i := range r.plane.manifest.Len() {
		r.real.want = append(r.real.want, bytes.Repeat([]byte{byte(i + 1)}, images.ChunkBytes)...)
	}
	return r.real
}

func (b *realBases) Bases(ctx context.Context) ([]string, error) { return b.store.Bases(ctx) }

func (b *realBases) EnsureBase(ctx context.Context, digest string, from hostagent.Source, progress func(uint32)) error {
	if err := b.store.EnsureBase(ctx, digest, from, progress); err != nil {
		return err
	}
	b.AddBase(digest, uint64(len(b.want)))
	return nil
}

func (b *realBases) CreateOverlay(ctx context.Context, life hostagent.Life, digest string, reserve uint64) (base hostagent.Base, overlay string, err error) {
	if base, _, err = b.store.CreateOverlay(ctx, life, digest, 1<<20); err != nil {
		return base, "", err
	}
	_, overlay, err = b.Host.CreateOverlay(ctx, life, digest, reserve)
	return base, overlay, err
}

func (b *realBases) TrashOverlay(ctx context.Context, life hostagent.Life) error {
	return errors.Join(b.store.TrashOverlay(ctx, life), b.Host.TrashOverlay(ctx, life))
}

func (b *realBases) Start(ctx context.Context, m hostagent.Machine) error {
	if have, err := os.ReadFile(m.Base.Raw); err != nil || !bytes.Equal(have, b.want) {
		b.damaged++
	}
	return b.Host.Start(ctx, m)
}

// TestDamageWhileItWaits: what becomes of the disks of a desktop that was prepared in the evening is found before it starts
// in the morning. The base is fetched again in time; a damaged overlay is never started on.
func TestDamageWhileItWaits(t *testing.T) {
	flip := func(t *testing.T, path string) {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte("?"), 300_000); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, base, overlay string)
		want   v1.DesktopState
	}{
		"bit flipped": {func(t *testing.T, base, _ string) { flip(t, base) }, ready},
		"cut off":     {func(_ *testing.T, base, _ string) { os.Truncate(base, 100) }, ready},
		"gone":        {func(_ *testing.T, base, _ string) { os.Remove(base) }, ready},
		"another file in its place": {func(_ *testing.T, base, _ string) {
			os.WriteFile(base+".new", make([]byte, 3*images.ChunkBytes), 0o444)
			os.Rename(base+".new", base)
		}, ready},
		"overlay cut off": {func(_ *testing.T, _, overlay string) { os.Truncate(overlay, 50) }, failed},
		"overlay of another base": {func(t *testing.T, _, overlay string) {
			text, err := os.ReadFile(overlay)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.Replace(text, []byte("/bases/"), []byte("/tmp/xx/"), 1)
			if err := os.WriteFile(overlay, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}, failed},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, fakehost.Config{}, func(r *rig) {
				b := r.withRealBases()
				r.restart()
				morning := time.Now().Add(10 * time.Minute)
				a := with(r.desktop("office-1", 7), func(a *v1.Assignment) { a.Incarnation.StartAt = timestamppb.New(morning) })
				r.plane.assign(a)
				r.awaitState(a, prepared, time.Minute)
				base := filepath.Join(b.root, "bases", a.GetIncarnation().GetDigest()+".raw")
				overlays, err := filepath.Glob(filepath.Join(b.root, "overlays", "*.qcow2"))
				if err != nil || len(overlays) != 1 {
					t.Fatal(overlays, err)
				}
				c.damage(t, base, overlays[0])
				r.awaitState(a, c.want, 20*time.Minute)
				message := r.plane.status(a).GetStatus().GetMessage()
				if b.damaged > 0 || c.want == failed && (r.starts(a) > 0 || !strings.Contains(message, "cannot be brought up")) {
					t.Errorf("started %d times, %d of them on a damaged base: %s", r.starts(a), b.damaged, message)
				}
				if have, err := os.ReadFile(base); err != nil || !bytes.Equal(have, b.want) {
					t.Errorf("the base was not made good: %v", err)
				}
			})
		})
	}
}
