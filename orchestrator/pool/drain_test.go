package pool

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// What waits cold on a host that is drained waits on another long before the doors open, and starts there, as much as that has room for.
func TestDrainedHostStartsNothing(t *testing.T) {
	story(t, func(h *house) {
		h.open(8, 10, &v1.Schedule{SpareBuffer: "0"})
		h.at(1, 0, 0)
		first, _ := store.Lookup[*v1.Host](h.mirror.View(), "h1")
		h.create(&v1.Host{Meta: &v1.Meta{Name: "h2"}}, store.WriterAPI)
		_, err := store.Modify(t.Context(), store.Open(h.memory, store.WriterDispatch), "h2", func(host *v1.Host) error {
			host.Status = proto.CloneOf(first.GetStatus())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Modify(t.Context(), h.api, "h1", func(host *v1.Host) error {
			host.Spec = &v1.HostSpec{Unschedulable: true}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		h.at(1, 10, 0)
		revision := h.mirror.View().Revision
		if planned := h.plannedOn("h2"); planned != 8 || h.plannedOn("h1") != 0 {
			t.Errorf("%d have a time to start on the other host, and %d on the drained one", planned, h.plannedOn("h1"))
		}
		h.at(2, 10, 0)
		if writes := h.mirror.View().Revision - revision; writes > 20 {
			t.Errorf("%d writes in the hour after", writes)
		}
		h.at(8, 30, 0)
		if ready, cold := h.count(); ready != 8 || cold != 2 {
			t.Errorf("as the doors open %d are ready and %d cold", ready, cold)
		}
	})
}

func (h *house) plannedOn(host string) (n int) {
	for _, d := range h.mirror.View().DesktopsOfPool("sales") {
		if inc := d.GetIncarnation(); inc.GetHost() == host && inc.GetStartAt() != nil && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY {
			n++
		}
	}
	return n
}
