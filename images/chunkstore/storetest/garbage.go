package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

func listed(t *testing.T, s chunkstore.Store) (items []chunkstore.Item) {
	t.Helper()
	for item, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b chunkstore.Item) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return items
}

// ofChunks are items as somebody without a list would name them.
func ofChunks(digests []images.Digest) (items []chunkstore.Item) {
	for _, digest := range digests {
		items = append(items, chunkstore.Item{Digest: digest})
	}
	return items
}

func put(t *testing.T, s chunkstore.Store, chunks []images.Chunk) {
	t.Helper()
	if _, err := s.Put(t.Context(), chunks); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func wantRemoved(t *testing.T, s chunkstore.Store, items []chunkstore.Item, age time.Duration, want uint64) {
	t.Helper()
	if got, err := s.Remove(t.Context(), items, age); err != nil || got != want {
		t.Errorf("Remove of what is %v old = %d bytes, %v; want %d", age, got, err, want)
	}
}

func testList(t *testing.T, s Opened, codec *images.Codec) {
	if items := listed(t, s); len(items) != 0 {
		t.Errorf("a new store has %v", items)
	}
	manifest, chunks := disk(t, codec, 3)
	put(t, s, chunks)
	if err := s.PutManifest(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	s.MakeOld(t, 3*time.Hour)
	more, digests := samples(codec, 0, 2)
	put(t, s, more)
	items := listed(t, s.Another)
	if len(items) != 6 {
		t.Fatalf("List: %v", items)
	}
	for _, item := range items {
		old := item.Age > 3*time.Hour-time.Minute && item.Age < 3*time.Hour+10*time.Minute
		young := item.Age >= 0 && item.Age < 10*time.Minute
		if isNew := slices.Contains(digests, item.Digest); isNew && !young || !isNew && !old {
			t.Errorf("%v has age %v", item.Digest, item.Age)
		}
		if item.Manifest != (item.Digest == manifest.Digest()) {
			t.Errorf("%v: manifest %v", item.Digest, item.Manifest)
		}
		if want, err := s.Size(t.Context(), []images.Digest{item.Digest}); !item.Manifest && (err != nil || want != item.Bytes) {
			t.Errorf("%v: %d bytes, Size says %d, %v", item.Digest, item.Bytes, want, err)
		}
	}
}

func testRemove(t *testing.T, s Opened, codec *images.Codec) {
	chunks, digests := samples(codec, 0, 10)
	put(t, s, chunks[:8])
	wantMissing(t, s, digests, digests[8:])
	wantRemoved(t, s, ofChunks(digests), time.Hour, 0) // young
	s.MakeOld(t, 2*time.Hour)
	wantRemoved(t, s, ofChunks(digests), 3*time.Hour, 0)
	wantRemoved(t, s, ofChunks(digests[:3]), time.Hour, size(chunks[:3]))
	wantRemoved(t, s, ofChunks(digests[:3]), time.Hour, 0) // gone
	wantMissing(t, s, digests, append(slices.Clone(digests[:3]), digests[8:]...))
	put(t, s, chunks)
	wantMissing(t, s, digests, nil)
	wantMissing(t, s.Another, digests, nil)
	wantChunk(t, s, chunks[0])
	wantRemoved(t, s.Another, ofChunks(digests[:3]), time.Hour, 0) // young again
	wantRemoved(t, s.Another, ofChunks(digests), 0, size(chunks))
	if items := listed(t, s); len(items) != 0 {
		t.Errorf("all was removed, and List has %v", items)
	}
}

// What a manifest needs stays for as long as it is young, however old the chunks are that it came to rest on.
func testYoung(t *testing.T, s Opened, codec *images.Codec) {
	manifest, chunks := disk(t, codec, 4)
	put(t, s, chunks)
	s.MakeOld(t, 48*time.Hour)
	for range 2 { // put again, it is young again
		if err := s.PutManifest(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		items := append(ofChunks(slices.Collect(manifest.Chunks())), chunkstore.Item{Digest: manifest.Digest(), Manifest: true})
		wantRemoved(t, s.Another, items, time.Hour, 0)
		s.MakeOld(t, 50*time.Minute)
		wantRemoved(t, s, items, time.Hour, 0)
		s.MakeOld(t, 48*time.Hour)
	}
	want := size(chunks) + uint64(len(manifest.Encoded()))
	wantRemoved(t, s.Another, listed(t, s), time.Hour, want)
	if _, err := s.GetManifest(t.Context(), manifest.Digest()); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("a manifest that was removed: %v", err)
	}
	if err := s.PutManifest(t.Context(), manifest); !errors.Is(err, images.ErrIncomplete) {
		t.Errorf("PutManifest without its chunks: %v", err)
	}
}

// Two processes remove what is old all the time while manifests come to rest on it: one that was put is whole.
func testRaces(t *testing.T, s Opened, codec *images.Codec) {
	manifest, chunks := disk(t, codec, 12)
	digests := slices.Collect(manifest.Chunks())
	for range 4 {
		put(t, s, chunks)
		s.MakeOld(t, 48*time.Hour)
		var wg sync.WaitGroup
		for _, remover := range []chunkstore.Store{s, s.Another} {
			wg.Go(func() {
				items := append(ofChunks(digests), chunkstore.Item{Digest: manifest.Digest(), Manifest: true})
				if _, err := remover.Remove(t.Context(), items, time.Hour); err != nil {
					t.Errorf("Remove: %v", err)
				}
			})
		}
		wg.Go(func() { putWhole(t, s.Another, manifest, chunks) })
		wg.Wait()
		for _, chunk := range chunks {
			wantChunk(t, s, chunk)
		}
		if _, err := s.GetManifest(t.Context(), manifest.Digest()); err != nil {
			t.Errorf("GetManifest: %v", err)
		}
		s.MakeOld(t, 48*time.Hour)
		wantRemoved(t, s, listed(t, s), time.Hour, size(chunks)+uint64(len(manifest.Encoded())))
	}
}

// putWhole does what an import does: send what is missing, and again if somebody removed it meanwhile.
func putWhole(t *testing.T, s chunkstore.Store, manifest *images.Manifest, chunks []images.Chunk) {
	for range 20 {
		err := s.PutManifest(t.Context(), manifest)
		if err == nil {
			return
		}
		if !errors.Is(err, images.ErrIncomplete) {
			t.Errorf("PutManifest: %v", err)
			return
		}
		if _, err := s.Put(t.Context(), chunks); err != nil {
			t.Errorf("Put: %v", err)
			return
		}
	}
	t.Error("PutManifest: chunks were missing twenty times")
}

func testOwner(t *testing.T, s Opened, _ *images.Codec) {
	for range 2 {
		if err := s.Own(t.Context(), "first"); err != nil {
			t.Errorf("Own: %v", err)
		}
	}
	if err := s.Another.Own(t.Context(), "second"); !errors.Is(err, chunkstore.ErrForeign) {
		t.Errorf("Own of another's store: %v", err)
	}
	if err := s.Another.Own(t.Context(), "first"); err != nil {
		t.Errorf("Own by another process of the owner: %v", err)
	}
	if items := listed(t, s); len(items) != 0 {
		t.Errorf("List has %v", items)
	}
}
