// Reads some topics from their beginning to their present end with Pulsar's own client, and prints the bytes of the
// messages and the seconds that it took: the base that our reading is measured against.
//
//     java -cp "libs/*" PulsarReader.java pulsar://host:port topic...

import java.util.*;
import java.util.concurrent.*;
import org.apache.pulsar.client.api.*;

public class PulsarReader {
    public static void main(String[] args) throws Exception {
        try (PulsarClient client = PulsarClient.builder().serviceUrl(args[0]).ioThreads(2).build()) {
            List<Reader<byte[]>> readers = new ArrayList<>();
            for (int i = 1; i < args.length; i++) {
                // Messages are of some MB: with the default of 1,000 the broker runs out of direct memory and goes silent.
                readers.add(client.newReader().topic(args[i]).startMessageId(MessageId.earliest)
                    .receiverQueueSize(16).create());
            }
            long began = System.nanoTime();
            ExecutorService pool = Executors.newFixedThreadPool(readers.size());
            List<Future<Long>> sums = new ArrayList<>();
            for (Reader<byte[]> reader : readers) {
                sums.add(pool.submit(() -> {
                    long sum = 0;
                    while (reader.hasMessageAvailable()) sum += reader.readNext().size();
                    return sum;
                }));
            }
            long sum = 0;
            for (Future<Long> part : sums) sum += part.get();
            System.out.println(sum + " " + (System.nanoTime() - began) / 1e9);
            pool.shutdown();
        }
    }
}
