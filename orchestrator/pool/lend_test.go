package pool

import (
	"fmt"
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

// Who left something on a desktop gets that one again, whatever the lots are that stand between equal ones.
func TestOwnDesktopComesFirst(t *testing.T) {
	for i := range 8 {
		for _, own := range []string{"sales-1", "sales-2"} {
			user := fmt.Sprintf("user%d", i)
			w := settled(t, 2)
			w.change(own, func(d *v1.Desktop) { d.Incarnation.UsedBy = user })
			s := openShop(t, w, plain)
			got, err := s.claimer.Claim(t.Context(), "sales", user, "", w.now)
			if err != nil || got.GetMeta().GetName() != own {
				t.Errorf("%s used %s and gets %q: %v", user, own, got.GetMeta().GetName(), err)
			}
		}
	}
}
