package locker.client;

import java.util.List;
import java.util.Map;

/**
 * News about a wait.
 *
 * @param position 1 at the head of the queue; 0 if it is not known
 * @param holders who holds locks that could serve the claim, as in the API: at most 10
 * @param holderCount how many holders there are in all
 * @param ahead the waiters directly ahead, nearest first: at most 5
 * @param code {@code waiting}, {@code self_wait} or {@code deadlock}
 * @param text the same in words
 */
public record Waiting(
        long position,
        List<Map<String, Object>> holders,
        long holderCount,
        List<Map<String, Object>> ahead,
        String code,
        String text) {

    static Waiting of(Map<String, Object> body) {
        Map<String, Object> queue = Json.object(Json.object(body.get("claim")).get("queue"));
        List<Map<String, Object>> holders = Json.objects(body.get("holders"));
        long count = body.get("holder_count") instanceof Number number ? number.longValue() : holders.size();
        long position = queue.get("position") instanceof Number number ? number.longValue() : 0;
        List<Map<String, Object>> ahead = Json.objects(queue.get("ahead"));
        return new Waiting(
                position, holders, count, ahead, String.valueOf(body.get("code")), String.valueOf(body.get("error")));
    }
}
