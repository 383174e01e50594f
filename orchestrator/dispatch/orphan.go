package dispatch

import (
	"cmp"
	"slices"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxOrphans bounds what is kept of one host's orphans, in memory and in Host.status.
const maxOrphans = 512

// life names an incarnation as a host knows it.
type life struct {
	desktop, uid string
	generation   int64
}

func lifeOf(r *v1.IncarnationReport) life {
	return life{r.GetDesktop(), r.GetUid(), r.GetStatus().GetGeneration()}
}

func lifeOfAssignment(a *v1.Assignment) life {
	return life{a.GetDesktop(), a.GetUid(), a.GetIncarnation().GetGeneration()}
}

// judgeOrphans decides about lives that a host has and nobody assigned to it. One is superseded, and is to be erased, only
// when the store itself says that the same desktop has a later life. All others stay as they are until somebody decides.
// While frozen nothing is erased that was not told so before.
func judgeOrphans(view *store.View, host string, frozen bool, told map[life]*v1.Assignment, orphans map[life]v1.DesktopState) (
	erase map[life]*v1.Assignment, unknown []*v1.Orphan) {
	erase = map[life]*v1.Assignment{}
	for o, state := range orphans {
		d, ok := store.Lookup[*v1.Desktop](view, o.desktop)
		same := ok && d.GetMeta().GetUid() == o.uid
		if same && names(d, host, o.uid, o.generation) {
			continue // ours after all: its assignment is on the way
		}
		if same && o.generation < d.GetIncarnation().GetGeneration() {
			if told[o] != nil || !frozen {
				erase[o] = erasure(d, host, o.generation)
			}
			continue
		}
		unknown = append(unknown, &v1.Orphan{Desktop: o.desktop, Uid: o.uid, Generation: o.generation, Running: running(state)})
	}
	slices.SortFunc(unknown, func(a, b *v1.Orphan) int {
		return cmp.Or(cmp.Compare(a.GetDesktop(), b.GetDesktop()), cmp.Compare(a.GetUid(), b.GetUid()), cmp.Compare(a.GetGeneration(), b.GetGeneration()))
	})
	return erase, unknown
}

func running(s v1.DesktopState) bool {
	return s == v1.DesktopState_DESKTOP_STATE_STARTING || s == v1.DesktopState_DESKTOP_STATE_READY || s == v1.DesktopState_DESKTOP_STATE_STOPPING
}

// erasure is the assignment that ends an earlier life of a desktop. Its data disk is never part of that.
func erasure(d *v1.Desktop, host string, generation int64) *v1.Assignment {
	a := assignment(d)
	a.Incarnation.Generation = generation
	a.Incarnation.Host = host
	a.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED
	a.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_KEEP
	a.Incarnation.StartAt, a.Incarnation.LookAt, a.Incarnation.UnlessUsedSince, a.Used = nil, nil, nil, false
	return a
}

// assignment is what an agent needs of a desktop: not who uses it, nor why.
func assignment(d *v1.Desktop) *v1.Assignment {
	in := d.GetIncarnation()
	return &v1.Assignment{
		Desktop: d.GetMeta().GetName(),
		Uid:     d.GetMeta().GetUid(),
		Spec:    d.GetSpec(),
		Used:    in.GetUsedBy() != "",
		Incarnation: &v1.Incarnation{
			Generation: in.GetGeneration(), Image: in.GetImage(), Version: in.GetVersion(), Digest: in.GetDigest(),
			Shape: in.GetShape(), Readiness: in.GetReadiness(), Host: in.GetHost(), Desired: in.GetDesired(),
			StartAt: in.GetStartAt(), DataDisposal: in.GetDataDisposal(), Signatures: in.GetSignatures(), Notice: in.GetNotice(),
			LookAt: in.GetLookAt(), UnlessUsedSince: in.GetUnlessUsedSince(),
		},
	}
}
