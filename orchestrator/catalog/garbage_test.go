package catalog_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/images"
	"daybreak/images/chunkstore/storetest"
	"daybreak/images/sign"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

var errKilled = errors.New("killed")

// plant is a control plane of which any call of a store can be the last, or be where somebody else comes in between.
type plant struct {
	t         *rapid.T
	now       time.Time
	backend   *store.Memory
	goods     *storetest.Memory
	intake    *catalog.Intake
	collector *catalog.Collector
	objects   *store.Store
	api, pool *store.Store
	codec     *images.Codec
	// left is how many calls are left until the process is killed; -1 for never.
	left int
	// between is called at the next call but left of a store, once.
	between func()
	wait    int
	// taken are the versions that were taken in at this step.
	taken []uint32
}

// tick is called before every call of either store.
func (p *plant) tick() error {
	if p.wait--; p.between != nil && p.wait < 0 {
		other := p.between
		p.between = nil
		left := p.left
		p.left = -1 // another process
		other()
		p.left = left
	}
	if p.left == 0 {
		return errKilled
	}
	if p.left > 0 {
		p.left--
	}
	return nil
}

// counted is a backend whose calls count.
type counted struct {
	store.Backend
	p *plant
}

func (c counted) Get(ctx context.Context, ref store.Ref) (store.Object, error) {
	if err := c.p.tick(); err != nil {
		return nil, err
	}
	return c.Backend.Get(ctx, ref)
}

func (c counted) List(ctx context.Context, kind v1.Kind) ([]store.Object, int64, error) {
	if err := c.p.tick(); err != nil {
		return nil, 0, err
	}
	return c.Backend.List(ctx, kind)
}

func (c counted) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	if err := c.p.tick(); err != nil {
		return 0, err
	}
	revision, err := c.Backend.Commit(ctx, guard, ops)
	if dead := c.p.tick(); dead != nil && err == nil {
		return 0, dead // it was written, and nobody heard of it
	}
	return revision, err
}

func newPlant(t *rapid.T, codec *images.Codec, key *sign.Key) *plant {
	p := &plant{t: t, now: noon(), backend: store.NewMemory(), goods: storetest.NewMemory(codec), codec: codec, left: -1}
	p.goods.Before = func(string) error { return p.tick() }
	p.objects = store.Open(counted{p.backend, p}, store.WriterRollout)
	p.api, p.pool = store.Open(p.backend, store.WriterAPI), store.Open(p.backend, store.WriterPool)
	var err error
	if p.intake, err = catalog.NewIntake(p.objects, p.goods, key, nil); err != nil {
		t.Fatal(err)
	}
	p.collector = catalog.NewCollector(p.goods, "cluster", zerolog.Nop())
	return p
}

// advance lets time pass everywhere.
func (p *plant) advance(by time.Duration) {
	p.now = p.now.Add(by)
	p.goods.Advance(by)
}

// disk is one of few disks that share chunks.
func (p *plant) disk(kind int) (*images.Manifest, []images.Chunk) {
	var list []images.Digest
	var chunks []images.Chunk
	for i := range 3 {
		plain := make([]byte, images.ChunkBytes)
		plain[0] = byte(1 + i*8 + kind>>i&1)
		list = append(list, images.Sum(plain))
		chunks = append(chunks, images.Chunk{Digest: list[i], Sealed: p.codec.Seal(plain)})
	}
	manifest, err := images.NewManifest(3*images.ChunkBytes, list)
	if err != nil {
		p.t.Fatal(err)
	}
	return manifest, chunks
}

// bring imports a disk as push does, sending what is said to be missing.
func (p *plant) bring(kind int) {
	manifest, chunks := p.disk(kind)
	missing, err := p.goods.Missing(p.t.Context(), slices.Collect(manifest.Chunks()))
	if err != nil {
		return
	}
	for _, chunk := range chunks {
		if !slices.Contains(missing, chunk.Digest) {
			continue
		}
		if _, err := p.goods.Put(p.t.Context(), []images.Chunk{chunk}); err != nil {
			return
		}
	}
	v, _, err := p.intake.CreateVersion(p.t.Context(), p.now, catalog.Draft{Image: "debian", Manifest: manifest.Encoded()})
	if err == nil {
		p.wantWhole(v, "taken in")
		p.taken = append(p.taken, v.GetNumber())
	} else if !errors.Is(err, errKilled) && !errors.Is(err, images.ErrIncomplete) && !errors.Is(err, catalog.ErrRefused) && !errors.Is(err, store.ErrConflict) {
		p.t.Fatalf("CreateVersion: %v", err)
	}
}

// wantWhole: all of a version's content is there.
func (p *plant) wantWhole(v *v1.ImageVersion, why string) {
	before := p.goods.Before
	p.goods.Before = nil
	defer func() { p.goods.Before = before }()
	digest, err := images.ParseDigest(v.GetDigest())
	if err != nil {
		p.t.Fatal(err)
	}
	manifest, err := p.goods.GetManifest(p.t.Context(), digest)
	if err != nil {
		p.t.Fatalf("version %d is %s: %v", v.GetNumber(), why, err)
	}
	for chunk := range manifest.Chunks() {
		if _, err := p.goods.Get(p.t.Context(), chunk); err != nil {
			p.t.Fatalf("version %d is %s: %v", v.GetNumber(), why, err)
		}
	}
}

func (p *plant) image() *v1.Image {
	image, err := store.Get[*v1.Image](p.t.Context(), p.api, "debian")
	if errors.Is(err, store.ErrNotFound) {
		return &v1.Image{}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return image
}

// check: what is not collected is whole, and what has just been taken in is not collected.
func (p *plant) check() {
	for _, v := range p.image().GetStatus().GetVersions() {
		if v.GetCollected() && slices.Contains(p.taken, v.GetNumber()) {
			p.t.Fatalf("version %d was taken in and collected at once: %v", v.GetNumber(), v)
		}
		if !v.GetCollected() {
			p.wantWhole(v, "not collected")
		}
	}
}

// number draws a version, which may not be there.
func (p *plant) number() uint32 {
	return uint32(rapid.IntRange(1, len(p.image().GetStatus().GetVersions())+1).Draw(p.t, "version"))
}

// follow lets a pool, a desktop or a host name a version, as their owners do: a ready one, and with the image written back.
func (p *plant) follow(what string, number uint32) {
	image := p.image()
	var v *v1.ImageVersion
	for _, each := range image.GetStatus().GetVersions() {
		if each.GetNumber() == number && each.GetState() == v1.VersionState_VERSION_STATE_READY {
			v = each
		}
	}
	if v == nil {
		return
	}
	ctx, rolls := p.t.Context(), store.Open(p.backend, store.WriterRollout)
	var err error
	switch what {
	case "pool":
		var pool *v1.Pool
		if pool, err = store.Get[*v1.Pool](ctx, p.api, "sales"); err == nil {
			changed := proto.CloneOf(pool)
			changed.Release = &v1.Release{Image: "debian", Version: number, Previous: pool.GetRelease().GetVersion()}
			_, err = rolls.Commit(ctx, store.Update(changed), store.Update(image))
		}
	case "desktop":
		var desktop *v1.Desktop
		if desktop, err = store.Get[*v1.Desktop](ctx, p.api, "sales-1"); err == nil {
			changed := proto.CloneOf(desktop)
			changed.Incarnation = &v1.Incarnation{Generation: desktop.GetIncarnation().GetGeneration() + 1, Image: "debian", Version: number, Digest: v.GetDigest()}
			_, err = p.pool.Commit(ctx, store.Update(changed))
		}
	case "host":
		var host *v1.Host
		if host, err = store.Get[*v1.Host](ctx, p.api, "kvm1"); err == nil {
			changed := proto.CloneOf(host)
			changed.WantedImages = []*v1.WantedImage{{Image: "debian", Digest: v.GetDigest()}}
			_, err = rolls.Commit(ctx, store.Update(changed))
		}
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) collect(grace time.Duration) {
	if _, err := p.collector.Collect(p.t.Context(), p.objects, p.now, grace, false); err != nil && !errors.Is(err, errKilled) {
		p.t.Fatalf("Collect: %v", err)
	}
}

// act does one thing at random.
func (p *plant) act(name string) {
	switch rapid.SampledFrom([]string{"bring", "bring", "publish", "retire", "withdraw", "pool", "desktop", "host", "collect", "collect"}).Draw(p.t, name) {
	case "bring":
		p.bring(rapid.IntRange(0, 7).Draw(p.t, "disk"))
	case "publish":
		_, _ = p.intake.Publish(p.t.Context(), p.now, "debian", p.number())
	case "retire":
		_, _ = p.intake.Retire(p.t.Context(), p.now, "debian", p.number(), false, "")
	case "withdraw":
		_, _ = p.intake.Retire(p.t.Context(), p.now, "debian", p.number(), true, "")
	case "pool":
		p.follow("pool", p.number())
	case "desktop":
		p.follow("desktop", p.number())
	case "host":
		p.follow("host", p.number())
	case "collect":
		p.collect(rapid.SampledFrom([]time.Duration{catalog.MinGrace, catalog.DefaultGrace}).Draw(p.t, "grace"))
	}
}

// Random histories of imports, publications, retirements and collections, of which any is killed at any call, and any comes
// in between two calls of another: what is not marked collected is whole at all times, nothing in use is ever collected, and
// in the end nothing is left of what nobody needs.
func TestGarbageHistories(t *testing.T) {
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := newPlant(t, codec, key)
		for _, row := range []struct {
			st *store.Store
			o  store.Object
		}{
			{p.api, &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian", Zone: "office", Desktops: 2}}},
			{p.pool, &v1.Desktop{Meta: &v1.Meta{Name: "sales-1"}, Spec: &v1.DesktopSpec{
				Pool: "sales", Zone: "office", VmUuid: "0b9d8a4e-3c53-4b4e-9d0f-1d2f3a4b5c6d", Mac: "52:54:00:00:00:01"}}},
			{p.api, &v1.Host{Meta: &v1.Meta{Name: "kvm1"}}},
		} {
			if _, err := row.st.Commit(t.Context(), store.Create(row.o)); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				p.left = rapid.IntRange(0, 12).Draw(t, "calls")
			case 1:
				p.wait = rapid.IntRange(0, 12).Draw(t, "wait")
				p.between = func() { p.act("between") }
			}
			before := p.used()
			p.taken = nil
			p.act("act")
			p.left, p.between = -1, nil
			p.check()
			p.wantKept(before)
			p.advance(time.Duration(rapid.SampledFrom([]int{0, 1, 30, 59, 61, 24 * 60, 8 * 24 * 60}).Draw(t, "minutes")) * time.Minute)
		}
		p.advance(8 * 24 * time.Hour)
		p.taken = nil
		p.collect(catalog.DefaultGrace)
		p.check()
		p.wantClean()
	})
}

// used are the versions that somebody uses now.
func (p *plant) used() (numbers []uint32) {
	ctx := p.t.Context()
	pool, err := store.Get[*v1.Pool](ctx, p.api, "sales")
	if err != nil {
		p.t.Fatal(err)
	}
	desktop, err := store.Get[*v1.Desktop](ctx, p.api, "sales-1")
	if err != nil {
		p.t.Fatal(err)
	}
	host, err := store.Get[*v1.Host](ctx, p.api, "kvm1")
	if err != nil {
		p.t.Fatal(err)
	}
	image := p.image()
	numbers = []uint32{pool.GetRelease().GetVersion(), pool.GetRelease().GetPrevious(), desktop.GetIncarnation().GetVersion(), image.GetStatus().GetCurrent()}
	for _, v := range image.GetStatus().GetVersions() {
		wanted := slices.ContainsFunc(host.GetWantedImages(), func(w *v1.WantedImage) bool { return w.GetDigest() == v.GetDigest() })
		if wanted || v.GetState() == v1.VersionState_VERSION_STATE_READY {
			numbers = append(numbers, v.GetNumber())
		}
	}
	return numbers
}

// wantKept: of what was used before and is used now nothing is collected.
func (p *plant) wantKept(before []uint32) {
	now := p.used()
	for _, v := range p.image().GetStatus().GetVersions() {
		if v.GetCollected() && slices.Contains(before, v.GetNumber()) && slices.Contains(now, v.GetNumber()) {
			p.t.Fatalf("version %d is used and collected: %v", v.GetNumber(), v)
		}
	}
}

// wantClean: the store has what versions need that are not collected, and no more; and those are used.
func (p *plant) wantClean() {
	needed := map[images.Digest]bool{}
	used := p.used()
	for _, v := range p.image().GetStatus().GetVersions() {
		if v.GetCollected() {
			continue
		}
		if !slices.Contains(used, v.GetNumber()) {
			p.t.Errorf("version %d is left and nobody uses it: %v", v.GetNumber(), v)
		}
		digest, err := images.ParseDigest(v.GetDigest())
		if err != nil {
			p.t.Fatal(err)
		}
		manifest, err := p.goods.GetManifest(p.t.Context(), digest)
		if err != nil {
			p.t.Fatal(err)
		}
		needed[digest] = true
		for chunk := range manifest.Chunks() {
			needed[chunk] = true
		}
	}
	for item, err := range p.goods.List(p.t.Context()) {
		if err != nil {
			p.t.Fatal(err)
		}
		if !needed[item.Digest] {
			p.t.Errorf("%v is left and nobody needs it", item)
		}
	}
}
