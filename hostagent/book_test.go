package hostagent

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// Whatever the lives have to say, a report of them fits into a message, and the reports together say all of it.
func TestReportsAreCutToWhatAMessageHolds(t *testing.T) {
	b, err := openBook(openTestJournal(t, filepath.Join(t.TempDir(), "journal.db")), noon)
	if err != nil {
		t.Fatal(err)
	}
	const lives = maxAssignments + 10
	for i := range lives {
		life := Life{Desktop: fmt.Sprintf("office-%d", i), UID: fmt.Sprintf("%036d", i), Generation: 7}
		b.revision++
		b.entries[keyOf(life)] = &entry{life: life, revision: b.revision, status: &v1.DesktopStatus{
			Generation: 7, State: failed, Message: strings.Repeat("x", i%1025),
		}}
	}
	seen := map[string]bool{}
	var reports int
	for since := uint64(0); ; reports++ {
		found, reached := b.since(since, maxAssignments, maxStatusBytes)
		if size := proto.Size(&v1.ReportRequest{Desktops: found}); size > maxStatusBytes || len(found) > maxAssignments {
			t.Fatalf("%d statuses of %d bytes in one report, want at most %d of %d", len(found), size, maxAssignments, maxStatusBytes)
		}
		if len(found) == 0 {
			break
		}
		for _, report := range found {
			seen[report.GetUid()] = true
		}
		select {
		case <-b.changed:
		default:
			if len(seen) < lives {
				t.Fatalf("%d of %d lives, and nothing says that more are to be reported", len(seen), lives)
			}
		}
		since = reached
	}
	if len(seen) != lives || reports < 2 {
		t.Errorf("%d of %d lives in %d reports", len(seen), lives, reports)
	}
	if found, _ := b.since(0, maxAssignments, 1); len(found) != 1 {
		t.Errorf("%d statuses of which none fits: want one, so that the others follow", len(found))
	}
}
