package pool

import (
	"slices"
	"strings"
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

func withData(w *world) { w.pool.Spec.Shape = &v1.Shape{DataDiskGib: 10} }

func TestDataDiskFixesTheHost(t *testing.T) {
	w := settled(t, 2, withData)
	for _, name := range w.names() {
		if got := w.desktops[name].Spec.DataHost; got != "h1" {
			t.Fatalf("%s: data host %q", name, got)
		}
	}
	w.pool.Spec.Shape = nil // the pool wants none any more; the disks that are there stay as they are
	w.claim("sales-1", "taro")
	w.release("sales-1")
	if w.settle(20) < 0 {
		t.Fatal("does not settle")
	}
	d := w.desktops["sales-1"]
	if d.Incarnation.UsedBy != "" || d.Incarnation.Host != "h1" || d.Incarnation.Shape.DataDiskGib != 10 {
		t.Errorf("after the refresh: %v", d.Incarnation)
	}
	if d.Incarnation.DataDisposal != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED || !d.Status.DataDisk {
		t.Errorf("a refresh touched the data disk: %v, %v", d.Incarnation, d.Status)
	}
}

func TestDataIsNeverSurplus(t *testing.T) {
	w := settled(t, 2, withData)
	w.pool.Spec.Desktops = 0
	a := w.round()
	if len(a.Retire)+len(a.Remove) != 0 {
		t.Fatalf("took desktops with data: %+v", a)
	}
	if want := "2 desktops more than wanted: 0 are claimed, and 2 hold data"; !strings.Contains(a.Status.Message, want) {
		t.Errorf("status says %q, want %q in it", a.Status.Message, want)
	}
}

func TestDisposal(t *testing.T) {
	for _, test := range []struct{ word, want v1.DataDisposal }{
		{v1.DataDisposal_DATA_DISPOSAL_DELETE, v1.DataDisposal_DATA_DISPOSAL_DELETE},
		{v1.DataDisposal_DATA_DISPOSAL_KEEP, v1.DataDisposal_DATA_DISPOSAL_KEEP},
		{v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED, v1.DataDisposal_DATA_DISPOSAL_KEEP},
	} {
		t.Run(test.word.String(), func(t *testing.T) {
			w := settled(t, 1, withData)
			w.change("sales-1", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{Data: test.word} })
			a := w.round()
			if len(a.Retire) != 1 || a.Retire[0].Desktop.Incarnation.DataDisposal != test.want {
				t.Fatalf("retired %v", a.Retire)
			}
			w.advance("sales-1", "")
			if a := w.round(); !slices.Equal(changedNames(a.Remove), []string{"sales-1"}) {
				t.Errorf("removed %v", changedNames(a.Remove))
			}
		})
	}
}

// The wish to delete the data comes when the life has ended already, or waits for a place: one more life does it.
func TestDisposalWithoutLife(t *testing.T) {
	for _, renewed := range []bool{false, true} {
		w := settled(t, 1, withData)
		w.claim("sales-1", "taro")
		w.release("sales-1")
		w.round()
		w.advance("sales-1", "") // DELETED, data disk kept
		if renewed {
			w.round()
		}
		w.change("sales-1", func(d *v1.Desktop) {
			d.Meta.Deletion = &v1.Deletion{Data: v1.DataDisposal_DATA_DISPOSAL_DELETE}
		})
		if a := w.round(); len(a.Remove) != 0 {
			t.Fatalf("renewed %v: the seat went and its disk did not", renewed)
		}
		inc := w.desktops["sales-1"].Incarnation
		if inc.Desired != v1.DesiredState_DESIRED_STATE_DELETED || inc.DataDisposal != v1.DataDisposal_DATA_DISPOSAL_DELETE {
			t.Fatalf("renewed %v: %v", renewed, inc)
		}
		if a := w.round(); len(a.Remove)+len(a.Renew)+len(a.Retire) != 0 {
			t.Fatalf("renewed %v: %+v", renewed, a)
		}
		w.advance("sales-1", "")
		w.advance("sales-1", "")
		if w.desktops["sales-1"].Status.DataDisk {
			t.Fatalf("renewed %v: the disk is still there", renewed)
		}
		if a := w.round(); len(a.Remove) != 1 {
			t.Errorf("renewed %v: %+v", renewed, a)
		}
	}
}

func TestDataOnRemovedHost(t *testing.T) {
	w := settled(t, 1, withData)
	w.hosts = map[string]bool{"h2": true}
	w.round()
	w.advance("sales-1", "h2")
	d := w.desktops["sales-1"]
	if d.Spec.DataHost != "h1" || d.Incarnation.Host != "" {
		t.Errorf("the data was given up: %v", d)
	}
	w.change("sales-1", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{Data: v1.DataDisposal_DATA_DISPOSAL_DELETE} })
	if a := w.round(); len(a.Remove) != 1 {
		t.Errorf("an explicit deletion waits for a host that is gone: %+v", a)
	}
}
