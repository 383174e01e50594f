package room

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// What a book remembers is what would be added up anew, whatever changes and whoever books in what it gave out before.
func TestBookIsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		mirror, ctx := storetest.Mirror(t, memory), t.Context()
		random := rand.New(rand.NewPCG(1, 2))
		var book Book
		for range 500 {
			o := anyObject(random)
			op := store.Create(o)
			if old, err := memory.Get(ctx, store.RefOf(o)); err == nil {
				op = store.Update(o)
				if op.Revision = old.GetMeta().GetRevision(); random.IntN(4) == 0 {
					op = store.Delete(old)
				}
			}
			if _, err := memory.Commit(ctx, store.Guard{}, []store.Op{op}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			got := book.Of(mirror.View())
			if want := Of(mirror.View()); !reflect.DeepEqual(got, want) { // not cmp: by what it embeds, an account looks like a message
				t.Fatalf("after %v of %v: %+v, want %+v", op.Verb, op.Ref, got, want)
			}
			for _, h := range got {
				h.Enter(Need{Pool: "a", VCPUs: 1, MemoryMiB: 1, Digest: "x"})
				h.Wake(Need{Phase: Cold, MemoryMiB: 5})
			}
		}
	})
}

func anyObject(random *rand.Rand) store.Object {
	switch random.IntN(8) {
	case 0:
		return &v1.Image{Meta: &v1.Meta{Name: "debian"}, Status: &v1.ImageStatus{Versions: []*v1.ImageVersion{
			{Number: 1, Digest: "d1", SizeBytes: uint64(random.IntN(3)) << 30},
		}}}
	case 1, 2:
		return &v1.Host{Meta: &v1.Meta{Name: fmt.Sprint("h", random.IntN(3))}, Status: &v1.HostStatus{
			Capacity: &v1.HostCapacity{Cpus: 8, MemoryMib: uint64(random.IntN(3)) << 14}, Images: []string{"d1", "d2"}[:random.IntN(3)],
		}}
	}
	states := []v1.DesktopState{v1.DesktopState_DESKTOP_STATE_PLACED, v1.DesktopState_DESKTOP_STATE_READY, v1.DesktopState_DESKTOP_STATE_DELETED}
	return &v1.Desktop{
		Meta: &v1.Meta{Name: fmt.Sprint("a-", random.IntN(9))}, Spec: &v1.DesktopSpec{Pool: "a"},
		Incarnation: &v1.Incarnation{
			Generation: 1, Host: fmt.Sprint("h", random.IntN(3)), Digest: "d1", Image: "debian", Desired: v1.DesiredState_DESIRED_STATE_READY,
			Shape: &v1.Shape{Vcpus: 1, MemoryMib: uint32(1024 * (1 + random.IntN(2)))},
		},
		Status: &v1.DesktopStatus{Generation: 1, State: states[random.IntN(3)]},
	}
}
