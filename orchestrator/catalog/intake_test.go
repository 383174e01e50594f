package catalog_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

type house struct {
	intake  *catalog.Intake
	key     *sign.Key
	objects *store.Store
	api     *store.Store
	backend *store.Memory
	root    string // of chunks
	chunks  *chunkstore.Dir
	codec   *images.Codec
}

func newHouse(t *testing.T) house {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	chunks, err := chunkstore.OpenDir(root, codec)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	backend := store.NewMemory()
	objects := store.Open(backend, store.WriterRollout)
	intake, err := catalog.NewIntake(objects, chunks, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return house{
		intake: intake, key: key, objects: objects, api: store.Open(backend, store.WriterAPI), backend: backend, root: root,
		chunks: chunks, codec: codec,
	}
}

// disk puts the chunks of a disk whose i-th chunk is filled with the i-th byte, and returns its manifest and what the
// chunks take.
func (h house) disk(t *testing.T, fill string) ([]byte, map[byte]uint64) {
	t.Helper()
	sizes := map[byte]uint64{}
	var list []images.Digest
	for _, b := range []byte(fill) {
		plain := bytes.Repeat([]byte{b}, images.ChunkBytes)
		chunk := images.Chunk{Digest: images.Sum(plain), Sealed: h.codec.Seal(plain)}
		if _, err := h.chunks.Put(t.Context(), []images.Chunk{chunk}); err != nil {
			t.Fatal(err)
		}
		sizes[b] = uint64(len(chunk.Sealed))
		list = append(list, chunk.Digest)
	}
	manifest, err := images.NewManifest(uint64(len(fill))*images.ChunkBytes, list)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Encoded(), sizes
}

func noon() time.Time {
	return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
}

func TestCreateVersion(t *testing.T) {
	h := newHouse(t)
	first, sizes := h.disk(t, "abb")
	second, more := h.disk(t, "abcd")
	want := func(got *v1.ImageVersion, existed, wantExisted bool, err error, want *v1.ImageVersion) {
		t.Helper()
		if err != nil || existed != wantExisted {
			t.Fatalf("CreateVersion: existed %v, %v", existed, err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("version (-want +got):\n%s", diff)
		}
	}
	one := &v1.ImageVersion{
		Number: 1, Digest: images.Sum(first).String(), SizeBytes: 3 * images.ChunkBytes, StoredBytes: sizes['a'] + sizes['b'],
		State: v1.VersionState_VERSION_STATE_DRAFT, StateSince: timestamppb.New(noon()), Note: "first", Created: timestamppb.New(noon()), By: "admin",
		Signatures: h.signed(t, "debian", first),
	}
	got, existed, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Note: "first", By: "admin", Manifest: first})
	want(got, existed, false, err, one)
	// Only what is new counts as stored.
	two := &v1.ImageVersion{
		Number: 2, Digest: images.Sum(second).String(), SizeBytes: 4 * images.ChunkBytes, StoredBytes: more['c'] + more['d'],
		State: v1.VersionState_VERSION_STATE_DRAFT, StateSince: timestamppb.New(noon()), Parent: 1, Created: timestamppb.New(noon()), Signatures: h.signed(t, "debian", second),
	}
	got, existed, err = h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Parent: 1, Manifest: second})
	want(got, existed, false, err, two)
	// The same content again is the version that there is, whatever the note says.
	got, existed, err = h.intake.CreateVersion(t.Context(), noon().Add(time.Hour), catalog.Draft{Image: "debian", Note: "again", Manifest: first})
	want(got, existed, true, err, one)

	image, err := store.Get[*v1.Image](t.Context(), h.objects, "debian")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&v1.ImageStatus{Versions: []*v1.ImageVersion{one, two}}, image.GetStatus(), protocmp.Transform()); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
}

func TestCreateVersionRefuses(t *testing.T) {
	h := newHouse(t)
	good, _ := h.disk(t, "ab")
	absent, err := images.NewManifest(512, []images.Digest{images.Sum([]byte("never sent"))})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		draft catalog.Draft
		want  error
	}{
		"garbage":        {catalog.Draft{Image: "debian", Manifest: []byte("qcow2?")}, images.ErrInvalid},
		"missing chunks": {catalog.Draft{Image: "debian", Manifest: absent.Encoded()}, images.ErrIncomplete},
		"bad name":       {catalog.Draft{Image: "../debian", Manifest: good}, store.ErrInvalid},
		"no such parent": {catalog.Draft{Image: "debian", Parent: 7, Manifest: good}, catalog.ErrRefused},
		"note too long":  {catalog.Draft{Image: "debian", Note: strings.Repeat("注", 2000), Manifest: good}, store.ErrInvalid},
	} {
		if v, _, err := h.intake.CreateVersion(t.Context(), noon(), test.draft); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v; want %v", name, v, err, test.want)
		}
	}
	if image, err := store.Get[*v1.Image](t.Context(), h.objects, "debian"); err == nil && len(image.GetStatus().GetVersions()) > 0 {
		t.Errorf("a refused version was kept: %v", image)
	}
	orphan := catalog.Draft{Image: "nobodys", Parent: 1, Manifest: good}
	if v, _, err := h.intake.CreateVersion(t.Context(), noon(), orphan); !errors.Is(err, catalog.ErrRefused) {
		t.Errorf("a version of an image that is gone: %v, %v", v, err)
	}
	if _, err := store.Get[*v1.Image](t.Context(), h.objects, "nobodys"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the image that was gone is there again: %v", err)
	}
}

func TestCreateVersionAtOnce(t *testing.T) {
	h := newHouse(t)
	var wg sync.WaitGroup
	for _, fill := range []string{"a", "b", "a", "c", "b", "a"} {
		manifest, _ := h.disk(t, fill)
		wg.Go(func() {
			if _, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	image, err := store.Get[*v1.Image](t.Context(), h.objects, "debian")
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]bool{}
	for i, v := range image.GetStatus().GetVersions() {
		if v.GetNumber() != uint32(i+1) || digests[v.GetDigest()] {
			t.Errorf("version %v at place %d", v, i)
		}
		digests[v.GetDigest()] = true
	}
	if len(digests) != 3 {
		t.Errorf("%d versions, want 3", len(digests))
	}
}

func TestPublish(t *testing.T) {
	h := newHouse(t)
	for _, fill := range []string{"a", "b"} {
		manifest, _ := h.disk(t, fill)
		if _, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest}); err != nil {
			t.Fatal(err)
		}
	}
	for _, number := range []uint32{1, 2, 2, 1} { // the last one goes back
		v, err := h.intake.Publish(t.Context(), noon(), "debian", number)
		if err != nil || v.GetState() != v1.VersionState_VERSION_STATE_READY || v.GetNumber() != number {
			t.Fatalf("Publish %d: %v, %v", number, v, err)
		}
		image, err := store.Get[*v1.Image](t.Context(), h.objects, "debian")
		if err != nil || image.GetStatus().GetCurrent() != number {
			t.Fatalf("after Publish %d the current version is %d, %v", number, image.GetStatus().GetCurrent(), err)
		}
	}
	for _, number := range []uint32{0, 3} {
		if _, err := h.intake.Publish(t.Context(), noon(), "debian", number); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Publish %d: %v, want ErrNotFound", number, err)
		}
	}
	if _, err := h.intake.Publish(t.Context(), noon(), "windows", 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Publish of no image: %v", err)
	}
	for _, state := range []v1.VersionState{v1.VersionState_VERSION_STATE_RETIRED, v1.VersionState_VERSION_STATE_WITHDRAWN} {
		if _, err := store.Modify(t.Context(), h.objects, "debian", func(image *v1.Image) error {
			image.Status.Versions[1].State = state
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.intake.Publish(t.Context(), noon(), "debian", 2); !errors.Is(err, catalog.ErrRefused) {
			t.Errorf("Publish of a version that is %v: %v", state, err)
		}
	}
}
