// Real work of a Java machine: a threaded TCP server and clients, pools, files, processes, garbage collection, signals of its own.
import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

public class Work {
    static void tcp() throws Exception {
        try (ServerSocket server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            ExecutorService pool = Executors.newFixedThreadPool(16);
            Thread acceptor = new Thread(() -> {
                try {
                    for (int i = 0; i < 40; i++) {
                        Socket s = server.accept();
                        pool.execute(() -> {
                            try (s; BufferedReader r = new BufferedReader(new InputStreamReader(s.getInputStream()));
                                 PrintWriter w = new PrintWriter(s.getOutputStream(), true)) {
                                for (String line; (line = r.readLine()) != null; ) w.println(new StringBuilder(line).reverse());
                            } catch (IOException e) { System.out.println("server: " + e); }
                        });
                    }
                } catch (IOException e) { System.out.println("accept: " + e); }
            });
            acceptor.start();
            List<Callable<Integer>> clients = new ArrayList<>();
            for (int c = 0; c < 40; c++) {
                int id = c;
                clients.add(() -> {
                    int good = 0;
                    try (Socket s = new Socket(server.getInetAddress(), server.getLocalPort());
                         BufferedReader r = new BufferedReader(new InputStreamReader(s.getInputStream()));
                         PrintWriter w = new PrintWriter(s.getOutputStream(), true)) {
                        for (int i = 0; i < 50; i++) {
                            w.println("m" + id + "." + i);
                            if (r.readLine().equals(new StringBuilder("m" + id + "." + i).reverse().toString())) good++;
                        }
                    }
                    return good;
                });
            }
            ExecutorService callers = Executors.newCachedThreadPool();
            int good = 0;
            for (Future<Integer> f : callers.invokeAll(clients)) good += f.get();
            callers.shutdown();
            acceptor.join();
            pool.shutdown();
            System.out.println("tcp " + good + " " + pool.awaitTermination(20, TimeUnit.SECONDS));
        }
    }

    static void web() throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", x -> {
            byte[] b = ("you said " + new String(x.getRequestBody().readAllBytes())).getBytes();
            x.sendResponseHeaders(200, b.length);
            x.getResponseBody().write(b);
            x.close();
        });
        server.start();
        HttpClient client = HttpClient.newHttpClient();
        URI uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        List<CompletableFuture<String>> all = IntStream.range(0, 100).mapToObj(i -> client.sendAsync(
            HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("n" + i)).build(), HttpResponse.BodyHandlers.ofString())
            .thenApply(HttpResponse::body)).collect(Collectors.toList());
        System.out.println("http " + all.stream().map(CompletableFuture::join).mapToInt(String::length).sum());
        server.stop(0);
        ((ExecutorService) server.getExecutor()).shutdown();
    }

    static void nio() throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", 0));
        server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        int port = ((InetSocketAddress) server.getLocalAddress()).getPort();
        Thread client = new Thread(() -> {
            try (SocketChannel c = SocketChannel.open(new InetSocketAddress("127.0.0.1", port))) {
                ByteBuffer b = ByteBuffer.allocate(200000);
                while (b.hasRemaining()) c.write(b);
            } catch (IOException e) { System.out.println(e); }
        });
        client.start();
        long total = 0;
        boolean open = true;
        ByteBuffer buffer = ByteBuffer.allocateDirect(8192);
        while (open) {
            selector.select();
            for (Iterator<SelectionKey> i = selector.selectedKeys().iterator(); i.hasNext(); ) {
                SelectionKey k = i.next();
                i.remove();
                if (k.isAcceptable()) server.accept().configureBlocking(false).register(selector, SelectionKey.OP_READ);
                else if (k.isReadable()) {
                    buffer.clear();
                    int n = ((SocketChannel) k.channel()).read(buffer);
                    if (n < 0) { k.channel().close(); open = false; } else total += n;
                }
            }
        }
        client.join();
        server.close();
        selector.close();
        System.out.println("nio " + total);
    }

    static void files() throws Exception {
        Path d = Files.createTempDirectory("java");
        for (int i = 0; i < 50; i++) Files.writeString(d.resolve("f" + i), "x".repeat(i));
        long size;
        try (Stream<Path> s = Files.list(d)) { size = s.mapToLong(p -> p.toFile().length()).sum(); }
        Path m = d.resolve("mapped");
        try (FileChannel c = FileChannel.open(m, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer b = c.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
            for (int i = 0; i < 1 << 20; i += 4096) b.put(i, (byte) 7);
            b.force();
            FileLock lock = c.lock();
            lock.release();
        }
        int sevens = 0;
        for (byte b : Files.readAllBytes(m)) if (b == 7) sevens++;
        System.out.println("files " + size + " " + sevens);
        try (WatchService w = FileSystems.getDefault().newWatchService()) {
            d.register(w, StandardWatchEventKinds.ENTRY_CREATE);
            Files.createFile(d.resolve("watched"));
            WatchKey k = w.poll(20, TimeUnit.SECONDS);
            System.out.println("watch " + (k == null ? null : k.pollEvents().get(0).context()));
        }
    }

    static void processes() throws Exception {
        Process p = new ProcessBuilder("sh", "-c", "tr a-z A-Z; exit 5").start();
        try (OutputStream o = p.getOutputStream()) { o.write("to the child".getBytes()); }
        System.out.println(new String(p.getInputStream().readAllBytes()) + " " + p.waitFor());
        List<Process> many = new ArrayList<>();
        for (int i = 0; i < 8; i++) many.add(new ProcessBuilder("sh", "-c", "exit " + i).start());
        int sum = 0;
        for (Process q : many) sum += q.waitFor();
        Process sleeper = new ProcessBuilder("sleep", "100").start();
        sleeper.destroy();
        System.out.println("exit " + sum + " " + sleeper.waitFor());
    }

    static void memory() throws Exception {
        AtomicLong n = new AtomicLong();
        Thread[] threads = new Thread[4];
        for (int t = 0; t < threads.length; t++) {
            (threads[t] = new Thread(() -> {
                List<byte[]> kept = new ArrayList<>();
                for (int i = 0; i < 20000; i++) {
                    byte[] b = new byte[2000];
                    b[i % 2000] = 1;
                    if (i % 100 == 0) kept.add(b);
                    n.addAndGet(b.length);
                }
            })).start();
        }
        for (Thread t : threads) t.join();
        System.gc();
        Object[] nulls = {null};
        int caught = 0;
        for (int i = 0; i < 20000; i++) try { nulls[0].hashCode(); } catch (NullPointerException e) { caught++; }
        int deep = 0;
        try { recurse(0); } catch (StackOverflowError e) { deep = 1; }
        System.out.println("memory " + n + " " + caught + " " + deep);
    }

    static int recurse(int n) { return recurse(n + 1) + 1; }

    public static void main(String[] args) throws Exception {
        tcp();
        web();
        nio();
        files();
        processes();
        memory();
        ConcurrentHashMap<Integer, Integer> m = new ConcurrentHashMap<>();
        IntStream.range(0, 100000).parallel().forEach(i -> m.merge(i % 1000, 1, Integer::sum));
        System.out.println("parallel " + m.values().stream().mapToInt(i -> i).sum());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        System.exit(3);
    }
}
