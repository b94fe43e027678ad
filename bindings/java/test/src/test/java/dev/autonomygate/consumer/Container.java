package dev.autonomygate.consumer;

import jakarta.servlet.ServletContainerInitializer;
import jakarta.servlet.http.HttpServlet;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.Wrapper;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.ErrorPage;

/** A servlet container, Tomcat, with one servlet. */
final class Container implements AutoCloseable {
    private final Tomcat tomcat = new Tomcat();
    private final String url;

    /**
     * Starts it.
     *
     * @param base where it may write
     * @param gate registers the filter
     * @param servlet the servlet
     * @param paths where it is; a request that fails with 410 gets what is at the first
     */
    Container(Path base, ServletContainerInitializer gate, HttpServlet servlet, String... paths) throws LifecycleException {
        tomcat.setSilent(true);
        tomcat.setBaseDir(base.toString());
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", null);
        context.addServletContainerInitializer(gate, null);
        Wrapper wrapper = Tomcat.addServlet(context, "tool", servlet);
        wrapper.setAsyncSupported(true);
        for (String path : paths) {
            wrapper.addMapping(path);
        }
        ErrorPage gone = new ErrorPage();
        gone.setErrorCode(410);
        gone.setLocation(paths[0]);
        context.addErrorPage(gone);
        tomcat.start();
        url = "http://127.0.0.1:" + tomcat.getConnector().getLocalPort();
    }

    HttpResponse<String> get(String path) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + path)).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    @Override
    public void close() throws LifecycleException {
        tomcat.stop();
        tomcat.destroy();
    }
}
