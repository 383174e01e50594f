package show

import (
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// shortDigest is how much of a digest the narrow table has.
const shortDigest = 12

// Versions makes the table of an image's versions, newest first. Without usage it says nothing of who uses them.
func Versions(image *v1.Image, usage *v1.UsageResponse, wide bool, now time.Time) Table {
	used := map[uint32]*v1.VersionUsage{}
	for _, line := range usage.GetVersions() {
		used[line.GetNumber()] = line
	}
	t := Table{Header: []string{"VERSION", "STATE", "DIGEST", "SIZE", "NEW DATA", "PARENT"}}
	if usage != nil {
		t.Header = append(t.Header, "POOLS", "DESKTOPS", "HOSTS")
	}
	t.Header = append(t.Header, "BY", "AGE", "NOTE")
	if wide {
		t.Header = append(t.Header, "SINCE", "CHECK", "REASON")
	}
	for _, v := range slices.Backward(image.GetStatus().GetVersions()) {
		u := used[v.GetNumber()]
		state, parent := word(v.GetState()), ""
		switch {
		case v.GetNumber() == image.GetStatus().GetCurrent():
			state += ", current"
		case v.GetCollected():
			state += ", content gone"
		}
		if v.GetParent() != 0 {
			parent = count(v.GetParent())
		}
		digest, hosts := v.GetDigest(), strings.Join(u.GetHosts(), ",")
		if !wide {
			digest, hosts = digest[:min(len(digest), shortDigest)], count(len(u.GetHosts()))
		}
		row := []string{count(v.GetNumber()), state, digest, Bytes(v.GetSizeBytes()), Bytes(v.GetStoredBytes()), parent}
		if usage != nil {
			row = append(row, strings.Join(u.GetPools(), ","), count(u.GetDesktops()), hosts)
		}
		row = append(row, v.GetBy(), Age(now, v.GetCreated()), v.GetNote())
		if wide {
			row = append(row, Age(now, v.GetStateSince()), v.GetCheck(), v.GetReason())
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Packages makes the table of the packages that two versions have differently.
func Packages(diff *v1.DiffResponse) Table {
	t := Table{Header: []string{"PACKAGE", "BEFORE", "AFTER"}}
	for _, change := range diff.GetPackages() {
		t.Rows = append(t.Rows, []string{change.GetName(), change.GetBefore(), change.GetAfter()})
	}
	return t
}
