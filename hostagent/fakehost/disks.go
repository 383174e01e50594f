package fakehost

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"daybreak/hostagent"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

func overlayPath(life hostagent.Life) string {
	return "/fake/overlays/" + life.UID + "." + strconv.FormatInt(life.Generation, 10)
}

// Bases implements hostagent.Disks.
func (h *Host) Bases(ctx context.Context) ([]string, error) {
	var digests []string
	err := h.call(ctx, OpList, hostagent.Life{}, func() error {
		for digest := range h.bases {
			digests = append(digests, digest)
		}
		return nil
	})
	slices.Sort(digests)
	return digests, err
}

// EnsureBase implements hostagent.Disks: it fetches and checks everything, and keeps the size.
func (h *Host) EnsureBase(ctx context.Context, digest string, from hostagent.Source, progress func(percent uint32)) error {
	there := false
	err := h.call(ctx, OpEnsureBase, hostagent.Life{}, func() error {
		if _, there = h.bases[digest]; there {
			h.careOf(digest).used = time.Now()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ensure base: %w", err)
	}
	if there {
		progress(100)
		return nil
	}
	if _, err := images.ParseDigest(digest); err != nil {
		return fmt.Errorf("ensure base: %w: %w", err, hostagent.ErrPermanent)
	}
	encoded, err := from.Manifest(ctx, digest)
	if err != nil {
		return fmt.Errorf("ensure base: %w", err)
	}
	manifest, err := images.Parse(encoded)
	if err != nil || manifest.Digest().String() != digest {
		return fmt.Errorf("ensure base: the source gave another manifest: %w", hostagent.ErrCorrupt)
	}
	h.mu.Lock()
	room := h.available() >= manifest.Size()
	h.mu.Unlock()
	if !room {
		return fmt.Errorf("ensure base: %w", hostagent.ErrNoSpace)
	}
	if err := h.fetch(ctx, manifest, from, progress); err != nil {
		return fmt.Errorf("ensure base: %w", err)
	}
	for percent := range uint32(10) {
		if err := h.pauseFetch(ctx); err != nil {
			return err
		}
		progress(90 + percent)
	}
	h.mu.Lock()
	h.bases[digest], h.manifests[digest] = manifest.Size(), manifest
	delete(h.cares, digest)
	h.careOf(digest)
	h.tally.Fetches++
	h.mu.Unlock()
	progress(100)
	return nil
}

func (h *Host) pauseFetch(ctx context.Context) error {
	if h.cfg.Fetch == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(h.cfg.Fetch / 10)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// fetch gets every chunk of a manifest once, checks it, and throws it away unless content is kept.
func (h *Host) fetch(ctx context.Context, manifest *images.Manifest, from hostagent.Source, progress func(uint32)) error {
	codec, err := images.NewCodec()
	if err != nil {
		return err
	}
	missing := map[images.Digest]images.Piece{}
	for piece := range manifest.Pieces() {
		if !piece.Zero() {
			missing[piece.Digest] = piece
		}
	}
	var wants []hostagent.Want
	for digest := range missing {
		wants = append(wants, hostagent.Want{Digest: digest})
	}
	var mu sync.Mutex
	err = from.Chunks(ctx, wants, func(chunk images.Chunk) error {
		mu.Lock()
		defer mu.Unlock()
		piece, ok := missing[chunk.Digest]
		if !ok || !chunk.Base.IsZero() {
			return fmt.Errorf("chunk %s was not asked for: %w", chunk.Digest, hostagent.ErrCorrupt)
		}
		if _, err := codec.OpenPiece(nil, piece, chunk.Sealed); err != nil {
			return fmt.Errorf("%w: %w", err, hostagent.ErrCorrupt)
		}
		delete(missing, piece.Digest)
		if h.cfg.KeepContent {
			h.mu.Lock()
			h.content[chunk.Digest] = chunk.Sealed
			h.mu.Unlock()
		}
		progress(uint32(90 * (len(wants) - len(missing)) / len(wants)))
		return nil
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("the source left out %d chunks", len(missing))
	}
	return err
}

// Chunk implements hostagent.Disks. It has none unless content is kept.
func (h *Host) Chunk(_ context.Context, digest images.Digest) ([]byte, error) {
	h.mu.Lock()
	sealed, ok := h.content[digest]
	h.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("read chunk: %w", hostagent.ErrNotFound)
	}
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	return codec.Open(nil, images.Chunk{Digest: digest, Sealed: sealed})
}

// CreateOverlay implements hostagent.Disks.
func (h *Host) CreateOverlay(ctx context.Context, life hostagent.Life, digest string, reserve uint64) (base hostagent.Base, path string, err error) {
	err = h.call(ctx, OpCreateOverlay, life, func() error {
		if _, ok := h.bases[digest]; !ok {
			return fmt.Errorf("create overlay: base %s: %w", digest, hostagent.ErrNotFound)
		}
		h.careOf(digest).used = time.Now()
		if o, ok := h.overlays[keyOf(life)]; ok {
			if o.digest != digest {
				return fmt.Errorf("create overlay: it is there, on another base: %w", hostagent.ErrPermanent)
			}
			return nil
		}
		if life.Build {
			reserve = min(reserve, h.bases[digest])
		}
		if h.full || h.available() < reserve {
			return fmt.Errorf("create overlay: %w", hostagent.ErrNoSpace)
		}
		h.overlays[keyOf(life)] = &overlay{life: life, digest: digest, reserve: reserve, written: map[int][]byte{}}
		return nil
	})
	if err != nil {
		return hostagent.Base{}, "", err
	}
	return hostagent.Base{Raw: "/fake/bases/" + digest}, overlayPath(life), nil
}

// CreateData implements hostagent.Disks.
func (h *Host) CreateData(ctx context.Context, desktop, uid string, size uint64) (string, error) {
	err := h.call(ctx, OpCreateData, hostagent.Life{Desktop: desktop, UID: uid}, func() error {
		if d, ok := h.data[uid]; ok {
			d.bytes = max(d.bytes, size)
			return nil
		}
		if h.full || h.available() < size {
			return fmt.Errorf("create data disk: %w", hostagent.ErrNoSpace)
		}
		h.data[uid] = &dataDisk{desktop: desktop, bytes: size}
		return nil
	})
	if err != nil {
		return "", err
	}
	return "/fake/data/" + uid, nil
}

// TrashOverlay implements hostagent.Disks. The disk of a VM that runs stays.
func (h *Host) TrashOverlay(ctx context.Context, life hostagent.Life) error {
	return h.call(ctx, OpTrashOverlay, life, func() error {
		if _, ok := h.overlays[keyOf(life)]; !ok {
			return nil
		}
		if d, ok := h.domains[keyOf(life)]; ok && d.state != hostagent.DomainGone {
			return fmt.Errorf("trash overlay of %s generation %d: it is in use", life.Desktop, life.Generation)
		}
		delete(h.overlays, keyOf(life))
		if life.Build {
			return nil
		}
		h.trash = append(h.trash, trashed{what: overlayPath(life), at: time.Now()})
		h.tally.Trashed[life]++
		return nil
	})
}

// TrashData implements hostagent.Disks. The data disk of a VM that runs stays.
func (h *Host) TrashData(ctx context.Context, uid string) error {
	return h.call(ctx, OpTrashData, hostagent.Life{UID: uid}, func() error {
		d, ok := h.data[uid]
		if !ok {
			return nil
		}
		for k, running := range h.domains {
			if k.uid == uid && running.state != hostagent.DomainGone && running.machine.Data != "" {
				return fmt.Errorf("trash data disk of %s: generation %d uses it", d.desktop, k.generation)
			}
		}
		delete(h.data, uid)
		h.trash = append(h.trash, trashed{what: "/fake/data/" + uid, at: time.Now()})
		return nil
	})
}

// Overlays implements hostagent.Disks.
func (h *Host) Overlays(ctx context.Context) ([]hostagent.Life, error) {
	return h.overlaysOf(ctx, false)
}

func (h *Host) overlaysOf(ctx context.Context, builds bool) ([]hostagent.Life, error) {
	var lives []hostagent.Life
	err := h.call(ctx, OpList, hostagent.Life{}, func() error {
		for _, o := range h.overlays {
			if o.life.Build == builds {
				lives = append(lives, o.life)
			}
		}
		return nil
	})
	slices.SortFunc(lives, func(a, b hostagent.Life) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(a.Generation, b.Generation))
	})
	return lives, err
}

// DataDisks implements hostagent.Disks.
func (h *Host) DataDisks(ctx context.Context) ([]*v1.KeptDisk, error) {
	var disks []*v1.KeptDisk
	err := h.call(ctx, OpList, hostagent.Life{}, func() error {
		for uid, d := range h.data {
			disks = append(disks, &v1.KeptDisk{Desktop: d.desktop, DesktopUid: uid, Bytes: d.bytes})
		}
		return nil
	})
	slices.SortFunc(disks, func(a, b *v1.KeptDisk) int { return cmp.Compare(a.GetDesktopUid(), b.GetDesktopUid()) })
	return disks, err
}

// available is free space less promises. Overlays and data disks here count as all used.
func (h *Host) available() uint64 {
	used := uint64(0)
	for _, size := range h.bases {
		used += size
	}
	for _, o := range h.overlays {
		used += o.reserve
	}
	for _, d := range h.data {
		used += d.bytes
	}
	return h.cfg.StoreBytes - min(used, h.cfg.StoreBytes)
}

// Space implements hostagent.Disks.
func (h *Host) Space(ctx context.Context) (hostagent.Space, error) {
	var space hostagent.Space
	err := h.call(ctx, OpList, hostagent.Life{}, func() error {
		space = hostagent.Space{Size: h.cfg.StoreBytes, Available: h.available()}
		if h.full {
			space.Available = 0
		}
		return nil
	})
	return space, err
}

// Sweep implements hostagent.Disks.
func (h *Host) Sweep(_ context.Context, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trash = slices.DeleteFunc(h.trash, func(t trashed) bool { return now.Sub(t.at) > h.cfg.Trash })
	return nil
}
